"""Rows whose elements lie beyond 2³¹ are read and written at their own addresses.

Only tiles of the last rows are launched. The tensors before them are zeros that no program touches, so that on a
CPU they take no memory: the interpreter's copy of arguments back to the device, which would touch all of them, is
left out where there is no device.
"""

import pytest
import torch

from weft.kernels.testing import TOLERANCE, call_bottleneck, relative_error

WIDTH = 4096
FAR = 24  # routed rows at the end
ROWS = 2**31 // WIDTH + FAR

pytestmark = pytest.mark.slow  # a minute in the interpreter


@pytest.fixture
def only_routed_tiles(monkeypatch, device):
    """Launch no tile of identity rows."""
    from weft.kernels.bottleneck import launch

    every = launch._tiles

    def routed(*arguments):
        _, order, table = every(*arguments)
        task, start, end, _, _ = table
        chosen = ((task >= 0) & (start < end)).nonzero().flatten()
        return chosen.numel(), order, table[:, chosen].contiguous()

    monkeypatch.setattr(launch, "_tiles", routed)
    if device == "cpu":
        from triton.runtime import interpreter

        monkeypatch.setattr(interpreter.GridExecutor, "_restore_args_dev", lambda *arguments: None)


def draw(*shape, device):
    return (torch.randn(*shape) * 0.3).to(device, torch.bfloat16).requires_grad_()


# Two steps write z·up and dz·down in tensors of their own, as large as x: only the forward is within reach.
@pytest.mark.parametrize(("rank", "gradients"), [(16, True), (160, False)], ids=["fused", "two-steps"])
def test_rows_beyond_two_billion_elements_match_the_same_rows_alone(
    device, only_routed_tiles, rank, gradients
):
    torch.manual_seed(0)
    down, up = draw(2, WIDTH, rank, device=device), draw(2, rank, WIDTH, device=device)
    last = draw(FAR, 1, WIDTH, device=device)
    dy = torch.randn(FAR, 1, WIDTH).to(device, torch.bfloat16)
    ids = torch.full((ROWS,), -1, device=device)
    ids[-FAR:] = torch.arange(FAR, device=device) % 2

    def call(x, chosen):
        return call_bottleneck(x, down, up, task_ids=chosen, residual=x, activation="relu", backend="triton")

    x = torch.zeros(ROWS, 1, WIDTH, dtype=torch.bfloat16, device=device)
    x[-FAR:] = last.detach()
    assert x.numel() > 2**31
    want = call(last, ids[-FAR:])
    got = call(x.requires_grad_(gradients), ids)
    assert torch.equal(got[-FAR:], want)
    if not gradients:
        return
    incoming = torch.zeros_like(x)
    incoming[-FAR:] = dy
    far = torch.autograd.grad(got, (x, down, up), incoming)
    near = torch.autograd.grad(want, (last, down, up), dy)
    assert torch.equal(far[0][-FAR:], near[0])
    for one, other in zip(far[1:], near[1:], strict=True):
        assert other.any()
        assert relative_error(one, other) <= TOLERANCE[torch.bfloat16]
