import subprocess
import sys


def test_the_import_needs_nothing_but_torch():
    code = (
        "import sys, weft.kernels; "
        "print([m for m in ('triton', 'numpy.testing', 'transformers', 'torch._dynamo', 'torch._inductor') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "triton" not in done.stdout
    assert "transformers" not in done.stdout
