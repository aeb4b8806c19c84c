import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).with_name("compile_kernels.py")
# Bytes of shared memory a program may have, by architecture.
SHARED_LIMIT = {80: 166_912, 90: 232_448, 100: 232_448}
# Plans are made for these compilers; others are only asked to compile and to respect the limits.
PLANNED_FOR = {(3, 6), (3, 9)}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None,
        reason="Triton is not installed: nox -s kernels_aot installs it",
    ),
]


@pytest.fixture(scope="module", params=SHARED_LIMIT, ids=lambda arch: f"sm_{arch}")
def compiled(request):
    """One row per shipped plan and variant, compiled in a process that never saw the interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    command = [sys.executable, str(SCRIPT), str(request.param)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    folder = os.environ.get("WEFT_AOT_REPORT")
    if folder:
        file = pathlib.Path(folder) / f"triton_{rows[0]['triton']}_sm{request.param}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def names(rows):
    return [(row["kernel"], row["variant"], row["inner"]) for row in rows]


def test_every_kernel_is_compiled(compiled):
    assert {row["kernel"] for row in compiled} >= {
        "bottleneck_forward", "bottleneck_backward_input", "outer_partials", "grouped_product",
        "cache_uniform", "cache_ragged",
        "cache_backward", "block_contract", "block_expand", "compacter_forward", "compacter_backward",
    }  # fmt: skip


def test_shared_memory_fits_the_architecture(compiled):
    too_large = [row for row in compiled if row["shared"] > SHARED_LIMIT[row["architecture"]]]
    assert names(too_large) == []


def test_nothing_spills_to_local_memory(compiled):
    version = tuple(int(part) for part in compiled[0]["triton"].split(".")[:2])
    if version not in PLANNED_FOR:
        pytest.skip(f"no plan was made for Triton {version}: register counts are not gated")
    assert names([row for row in compiled if row["stack"] or row["spills"]]) == []


def test_matrix_units_of_the_architecture_are_used(compiled):
    unit = {80: "hmma", 90: "hgmma", 100: "tcgen05"}[compiled[0]["architecture"]]
    # Tiles of fewer than 64 rows are too small for the warp-group unit and use the older one.
    small = {("cache_backward", 512), ("cache_backward", 1024)}
    idle = [row for row in compiled if not row[unit] and (row["kernel"], row["inner"]) not in small]
    assert names(idle) == []


def test_dense_outputs_are_stored_sixteen_bytes_at_a_time(compiled):
    # Class counts are arbitrary, so rows of logits need not be aligned.
    dense = [row for row in compiled if not row["kernel"].startswith("cache_")]
    assert names([row for row in dense if not row["wide_stores"]]) == []
