"""Two processes on a CPU: data parallelism and sharding give the gradients of one process."""

import os
import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from weft.core import load_adapter
from weft.core.errors import AttachError
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import adapted, outputs, per_row_loss, rows_of

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
    before = {slot: value.clone() for _, slot, value in model.weft.slots()}
    with model.route(tasks=ROWS[rank]):
        per_row_loss(wrapped, rows_of(batch, [2 * rank, 2 * rank + 1])).sum().backward()
    _, _, expected = reference("bart")
    for name, value in model.named_parameters():
        if value.requires_grad:
            torch.testing.assert_close(value.grad, expected[name], atol=1e-6, rtol=1e-5, msg=name)
    optimizer.step()
    changed = {slot for _, slot, value in model.weft.slots() if not torch.equal(value, before[slot])}
    grads = {slot for _, slot, value in model.weft.slots() if value.grad is not None}
    assert grads == {"vqa", "gqa", "shared"}
    assert "nlvr" not in changed or grads
    with pytest.raises(
        AttachError, match="must not be wrapped for data-parallel training when its tasks change"
    ):
        model.add_task("caption")
    model.model.shared.weight.requires_grad_(True)
    with pytest.raises(AttachError, match="`requires_grad` must stay as it was"), model.route(task="vqa"):
        wrapped(**batch)


def test_a_different_task_on_each_rank(tmp_path):
    spawn(_ddp, tmp_path)


def _sharded(rank, folder, backbone):
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    _, _, expected = reference(backbone)
    model, batch = adapted(METHOD, backbone, TASKS)
    model.train()
    mesh = init_device_mesh("cpu", (2,))
    scalars = {value for value in model.parameters() if value.dim() == 0}
    fully_shard(model, mesh=mesh, ignored_params=scalars)
    assert all(isinstance(value, DTensor) for value in model.parameters() if value.dim())
    with model.route(tasks=ROWS[rank]):
        per_row_loss(model, rows_of(batch, [2 * rank, 2 * rank + 1])).sum().backward()
    for name, value in model.named_parameters():
        if value.requires_grad:
            torch.testing.assert_close(
                value.grad.full_tensor(), expected[name], atol=1e-6, rtol=1e-5, msg=name
            )
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    optimizer.step()
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(model, options=options)
    if rank == 0:
        model.save_pretrained(folder / "saved", state_dict=state)


@pytest.mark.parametrize("backbone", ["bart", "clip"])
def test_sharded_gradients_steps_and_files(tmp_path, backbone):
    spawn(_sharded, tmp_path, backbone)
    model, batch, gradients = reference(backbone)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name in gradients and not name.endswith(".nlvr"):
                value.sub_(0.1 * gradients[name])
    other, _ = tiny_backbone(backbone)
    load_adapter(other, tmp_path / "saved")
    for task in ("vqa", "gqa", "nlvr"):
        with model.route(task=task), other.route(task=task):
            torch.testing.assert_close(
                outputs(other, batch), outputs(model.eval(), batch), atol=1e-5, rtol=1e-5
            )
