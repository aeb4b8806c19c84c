#!/usr/bin/env bash
# Check and measure the kernels on the GPU of this machine, within nine minutes, with plain python3: nothing is installed.
#   scripts/gpu_check.sh [FOLDER]      results; by default benchmarks/results/gpu
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-benchmarks/results/gpu}
PYTHONPATH=$(printf '%s/src:' packages/*)
export PYTHONPATH
mkdir -p "$out"
failed=0

part() { # part SECONDS WORDS...: run one part, say how it ended, and go on
  local seconds=$1
  shift
  printf '\n== %s\n' "$*"
  timeout "$seconds" "$@" || { echo "== ended with $?: $*"; failed=1; }
}

python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || {
  echo "No CUDA device is visible: nothing is checked."
  exit 2
}
if python3 -c 'import pytest' 2>/dev/null; then
  part 180 python3 -m pytest -q -p no:cacheprovider -m 'not slow' packages/kernels/tests/interpret
else
  echo "pytest is not installed: correctness is checked by the benchmark alone."
fi
part 200 python3 packages/kernels/benchmarks/run.py --out "$out"
part 150 python3 benchmarks/gpu_step.py --out "$out"
exit "$failed"
