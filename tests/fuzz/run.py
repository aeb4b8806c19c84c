"""Feed damaged and hostile files to everything that reads files of others, for a time that is said.

    python -m tests.fuzz.run --seconds 60 [--only images spools] [--engine hypothesis|atheris]

An exception that is none of weft's own ends the run with code 1, and so does an input that takes long or much memory.
The input is kept in `tests/fuzz/corpus/TARGET/`, where `tests/test_fuzz_corpus.py` reads it from then on.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.fuzz.mutations import TOKENS, mutated
from tests.fuzz.ours import is_ours
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
LONGEST = 20  # seconds that one small input may take
MOST = 6 * 2**30  # bytes that the process may hold


class TooLongError(BaseException):
    """One input took too long; not an `Exception`, so that nothing on the way takes it for an error of a file."""


def feed(name: str, data: bytes) -> None:
    """Give one input to a target; anything but an error of weft is raised."""
    place = Path(tempfile.mkdtemp(prefix="weft-fuzz-"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (place / "in").mkdir()
            TARGETS[name](data, place / "in")
    except Exception as error:
        if not is_ours(error):
            raise
    finally:
        shutil.rmtree(place, ignore_errors=True)


def corpus_of(name: str) -> list[bytes]:
    """Seeds of a target, and what was found earlier."""
    kept = sorted((CORPUS / name).glob("*")) if (CORPUS / name).is_dir() else []
    return seeds(name) + [path.read_bytes() for path in kept]


def with_hypothesis(name: str, seconds: float) -> int:
    """Mutate the corpus by hypothesis, which shrinks what it finds.

    Args:
        name: The target.
        seconds: How long; the last round may run over.

    Returns:
        How many different faults were found.
    """
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    known: set[str] = set()
    for data in corpus_of(name):  # what is imported and made once is made here, and costs no input its time
        try:
            feed(name, data)
        except Exception as error:
            known.add(place_of(error))
            _keep(name, data, error)
    started, tried = time.monotonic(), 0
    last = [b""]
    edit = st.tuples(
        st.sampled_from(("splice", "token", "repeat")),
        st.integers(0, 100_000),
        st.integers(0, 40),
        st.sampled_from(TOKENS) | st.binary(max_size=8),
    )
    inputs = st.builds(mutated, st.sampled_from(corpus_of(name)), st.lists(edit, min_size=1, max_size=5))
    quiet = {
        "report_multiple_bugs": False,
        "deadline": None,
        "database": None,
        "suppress_health_check": list(HealthCheck),
    }

    @settings(max_examples=50, phases=[Phase.generate, Phase.shrink], **quiet)  # type: ignore[arg-type]
    @given(inputs | st.binary(max_size=64))
    def check(data: bytes) -> None:
        nonlocal tried
        tried += 1
        try:
            with _at_most(LONGEST):
                feed(name, data)
        except (Exception, TooLongError) as error:
            if place_of(error) in known:
                return
            last[0] = data
            raise

    while time.monotonic() - started < seconds:
        try:
            check()
        except (Exception, TooLongError) as error:
            known.add(place_of(error))
            _keep(name, last[0], error)
    _say(f"{name}: {tried:,} inputs by hypothesis in {time.monotonic() - started:.0f} s, {len(known)} faults")
    return len(known)


def with_atheris(name: str, seconds: float) -> int:
    """Let atheris follow which lines of weft an input reaches, in a process of its own.

    Args:
        name: The target.
        seconds: How long.

    Returns:
        1 if a fault ended it, else 0.
    """
    folder = Path(tempfile.mkdtemp(prefix="weft-atheris-"))
    inputs, words = folder / "inputs", folder / "words"
    inputs.mkdir()
    for number, data in enumerate(corpus_of(name)):
        (inputs / f"seed-{number}").write_bytes(data)
    words.write_text("".join(map(_quoted, TOKENS)), encoding="ascii")
    command = [sys.executable, "-m", "tests.fuzz.run", "--inside", name, str(inputs)]
    command += [f"-max_total_time={max(1, round(seconds))}"]
    command += [f"-artifact_prefix={folder}/", f"-dict={words}", f"-timeout={LONGEST}"]
    command += [f"-rss_limit_mb={MOST // 2**20}", f"-max_len={max(8192, *map(len, corpus_of(name)))}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, errors="replace")
    crashes = [path for path in folder.iterdir() if path.name.startswith(("crash-", "timeout-", "oom-"))]
    for path in crashes:
        _keep(name, path.read_bytes(), RuntimeError(f"{path.name}\n{done.stdout[-3000:]}"))
    ended = next((line for line in done.stderr.split("\n") if line.startswith("Done ")), None)
    if done.returncode and not crashes:
        _say(done.stderr[-3000:])
    _say(f"{name}: {ended or f'ended with code {done.returncode}'} by atheris")
    shutil.rmtree(folder)
    return int(done.returncode != 0)


def place_of(error: BaseException) -> str:
    """What tells one fault from another: the kind of error, and the line of weft that it came through."""
    frames = list(traceback.extract_tb(error.__traceback__))
    ours = [frame for frame in frames if f"{os.sep}weft{os.sep}" in frame.filename] or frames
    return f"{type(error).__name__} {ours[-1].filename}:{ours[-1].lineno}"


def _quoted(word: bytes) -> str:
    """A line of libFuzzer's dictionary; it takes no empty word and no long one."""
    return '"{}"\n'.format("".join(f"\\x{byte:02x}" for byte in word)) if 0 < len(word) < 64 else ""


def _keep(name: str, data: bytes, error: BaseException) -> None:
    path = CORPUS / name / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "/fuzz/run.py" not in frame.filename
    ]
    lines = [
        f"  {frame.filename}:{frame.lineno} {frame.line}" for frame in frames if "weft" in frame.filename
    ]
    told = "\n".join([*lines[-6:], f"  {type(error).__name__}: {str(error)[:3000]}"])
    _say(f"{name}: a fault of {len(data)} bytes, kept as {path.name}\n{told}")


def _say(line: str) -> None:
    print(line, flush=True)


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    """Raise in what runs inside once it has taken so long, where the system has alarms."""

    def ring(*_: Any) -> None:
        raise TooLongError(f"more than {seconds} seconds")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _limit_memory() -> None:
    with suppress(ImportError):  # Windows has none
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MOST, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _inside(name: str, arguments: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["weft"]):
        for data in corpus_of(name):
            feed(name, data)
    atheris.Setup([sys.argv[0], *arguments], lambda data: feed(name, data))
    atheris.Fuzz()


def _shares(names: list[str], seconds: float) -> Iterator[tuple[str, float]]:
    """Each target with its part of the time that is left."""
    end = time.monotonic() + seconds
    for place, name in enumerate(names):
        yield name, max(1.0, (end - time.monotonic()) / (len(names) - place))


def main() -> int:
    """Run the targets one after another."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    if sys.argv[1:2] == ["--inside"]:
        _inside(sys.argv[2], sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300.0, help="Time for all targets together.")
    parser.add_argument("--only", nargs="+", choices=sorted(TARGETS), help="Targets; by default all.")
    engines: dict[str, Callable[[str, float], int]] = {"hypothesis": with_hypothesis, "atheris": with_atheris}
    parser.add_argument("--engine", choices=sorted(engines), help="By default both, each half of the time.")
    told = parser.parse_args()
    _limit_memory()
    if told.engine is None and find_spec("atheris") is None:
        _say("atheris is not installed here: hypothesis has all the time")
        told.engine = "hypothesis"
    chosen = [engines[told.engine]] if told.engine else list(engines.values())
    started, found = time.monotonic(), 0
    for name, share in _shares(told.only or list(TARGETS), told.seconds):
        found += sum(engine(name, share / len(chosen)) for engine in chosen)
    _say(
        f"{f'{found} faults' if found else 'no exception that is not of weft'} in {time.monotonic() - started:.0f} s"
    )
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
