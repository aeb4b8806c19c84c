"""Two processes on a CPU: data parallelism gives the gradients of one process."""

import os
import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from weft.core.errors import AttachError
from weft.core.testing.unit_contract import adapted, per_row_loss, rows_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32" or not dist.is_gloo_available(), reason="needs gloo"),
]

METHOD = {"method": "bottleneck", "bottleneck_size": 4, "sharing": "half", "train_full": ["norms"]}
TASKS = ["vqa", "gqa", "nlvr"]
ROWS = (["vqa", "vqa"], ["gqa", "gqa"])


def spawn(function, *args):
    mp.start_processes(_started, args=(function, *args), nprocs=2, start_method="spawn")


def _started(rank, function, folder, *args):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    try:
        function(rank, folder, *args)
    finally:
        dist.destroy_process_group()


def reference(backbone):
    """Gradients of one process over both halves of the batch."""
    model, batch = adapted(METHOD, backbone, TASKS)
    model.train()
    with model.route(tasks=[task for rows in ROWS for task in rows]):
        (per_row_loss(model, batch).sum() / 2).backward()
    return model, batch, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def _ddp(rank, folder):
    model, batch = adapted(METHOD, "bart", TASKS)
    model.train()
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = {(key, slot): value.clone() for key, slot, value in model.weft.slots()}
    with model.route(tasks=ROWS[rank]):
        per_row_loss(wrapped, rows_of(batch, [2 * rank, 2 * rank + 1])).sum().backward()
    _, _, expected = reference("bart")
    for name, value in model.named_parameters():
        if value.requires_grad:
            torch.testing.assert_close(value.grad, expected[name], atol=1e-6, rtol=1e-5, msg=name)
    optimizer.step()
    changed = {slot for key, slot, value in model.weft.slots() if not torch.equal(value, before[key, slot])}
    grads = {slot for _, slot, value in model.weft.slots() if value.grad is not None}
    assert grads == {"vqa", "gqa", "shared"}
    assert changed == {"vqa", "gqa", "shared"}
    with pytest.raises(
        AttachError, match="must not be wrapped for data-parallel training when its tasks change"
    ):
        model.add_task("caption")
    model.model.shared.weight.requires_grad_(True)
    with pytest.raises(AttachError, match="`requires_grad` must stay as it was"), model.route(task="vqa"):
        wrapped(**batch)


def test_a_different_task_on_each_rank(tmp_path):
    spawn(_ddp, tmp_path)
