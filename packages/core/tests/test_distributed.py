"""Two processes on a CPU: data parallelism and sharding give the gradients of one process."""

import sys

import pytest
import torch
import torch.distributed as dist

from weft.core import load_adapter
from weft.core.errors import AttachError
from weft.core.testing import tiny_backbone
from weft.core.testing.processes import spawn
from weft.core.testing.unit_contract import HALF_SHARED, adapted, outputs, per_row_loss, rows_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32" or not dist.is_gloo_available(), reason="needs gloo"),
]

TASKS = ["vqa", "gqa", "nlvr"]
ROWS = (["vqa", "vqa"], ["gqa", "gqa"])


def reference(backbone):
    """Gradients of one process over both halves of the batch."""
    model, batch = adapted(HALF_SHARED, backbone, TASKS)
    model.train()
    with model.route(tasks=[task for rows in ROWS for task in rows]):
        (per_row_loss(model, batch).sum() / 2).backward()
    return model, batch, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def _ddp(rank, folder):
    model, batch = adapted(HALF_SHARED, "bart", TASKS)
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
    if rank == 0:
        model.save_pretrained(folder / "saved")
    dist.barrier()
    resumed, _ = tiny_backbone("bart")
    load_adapter(resumed, folder / "saved")
    optimizer.zero_grad()
    for each in (wrapped, torch.nn.parallel.DistributedDataParallel(resumed.train())):
        step(each.module, batch, rank, call=each).step()
    found = dict(resumed.named_parameters())
    assert all(torch.equal(found[name], value) for name, value in model.named_parameters())
    with pytest.raises(
        AttachError, match="must not be wrapped for data-parallel training when its tasks change"
    ):
        model.add_task("caption")
    model.model.shared.weight.requires_grad_(True)
    with pytest.raises(AttachError, match="`requires_grad` must stay as it was"), model.route(task="vqa"):
        wrapped(**batch)


def test_a_different_task_on_each_rank(tmp_path):
    spawn(_ddp, tmp_path)


def shard(model):
    """Shard every layer and then the root, as training loops do; scalars such as CLIP's cannot be sharded."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    mesh = init_device_mesh("cpu", (2,))
    scalars = {value for value in model.parameters() if value.dim() == 0}
    for module in list(model.modules()):
        if type(module).__name__ in ("BartEncoderLayer", "BartDecoderLayer", "CLIPEncoderLayer"):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh, ignored_params=scalars)
    assert all(isinstance(value, DTensor) for value in model.parameters() if value.dim())
    return scalars


def gathered(model):
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def step(model, batch, rank, call=None):
    with model.route(tasks=ROWS[rank]):
        per_row_loss(call or model, rows_of(batch, [2 * rank, 2 * rank + 1])).sum().backward()
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)


def _sharded(rank, folder, backbone):
    _, _, expected = reference(backbone)
    model, batch = adapted(HALF_SHARED, backbone, TASKS)
    scalars = shard(model.train())
    assert bool(scalars) == (backbone == "clip")
    optimizer = step(model, batch, rank)
    for name, value in model.named_parameters():
        if value.requires_grad:
            gradient = value.grad.full_tensor()
            torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-5, msg=name)
    before = {(key, slot): value.full_tensor().clone() for key, slot, value in model.weft.slots()}
    optimizer.step()
    moved = {s for key, s, v in model.weft.slots() if not torch.equal(v.full_tensor(), before[key, s])}
    assert moved == {"vqa", "gqa", "shared"}
    state = gathered(model)
    if rank == 0:
        model.save_pretrained(folder / "saved", state_dict=state)
    dist.barrier()
    # Resume: load into a plain model, shard that one, and take the step after.
    resumed, _ = tiny_backbone(backbone)
    load_adapter(resumed, folder / "saved")
    shard(resumed.train())
    optimizer.zero_grad()
    for each in (model, resumed):
        step(each, batch, rank).step()
    found, wanted = gathered(resumed), gathered(model)
    if rank == 0:
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-6, msg=name)


@pytest.mark.parametrize("backbone", ["bart", "clip"])
def test_sharded_gradients_steps_files_and_resumption(tmp_path, backbone):
    spawn(_sharded, tmp_path, backbone)
    model, batch, gradients = reference(backbone)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name in gradients and not name.endswith(".nlvr"):
                value.sub_(0.1 * gradients[name])
    other, _ = tiny_backbone(backbone)
    load_adapter(other, tmp_path / "saved")
    for task in TASKS:
        with model.route(task=task), other.route(task=task):
            torch.testing.assert_close(
                outputs(other, batch), outputs(model.eval(), batch), atol=1e-5, rtol=1e-5
            )
