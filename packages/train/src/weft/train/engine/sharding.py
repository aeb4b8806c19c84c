"""FSDP2: weights, gradients and optimiser states are sharded over the processes; each layer is gathered to run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from weft.train.errors import RunError
from weft.train.processes import Processes

ENTRANCES = ("generate", "embed", "encode_images", "encode_image", "encode_text")
"""Methods by which evaluation enters a model besides `forward`."""


def check_shardable(model: Any, objectives: Mapping[str, Any]) -> None:
    """Refuse what does not go with a sharded model.

    These are objectives that keep a copy of the weights, such as BLIP's momentum encoder, and auxiliary losses.

    Raises:
        RunError: If there is one.
    """
    for name, objective in objectives.items():
        if isinstance(objective, nn.Module):
            raise RunError(
                f"`training.sharded` must be false for the objective {name!r} of this backbone, which keeps a whole "
                "copy of the weights, but is true. Leave it out: every process then has the whole model."
            )
    for config in model.weft.plan.configs:
        if config.owes:
            raise RunError(
                f"`training.sharded` must be false for the method {config.label!r} with its auxiliary loss, but is "
                "true. Leave it out, or the loss, such as `balance`."
            )


def shard(model: Any, processes: Processes) -> None:
    """Shard a model, equal on all processes, in place: each of its layers, and the rest with the banks of the units.

    Banks are under the root, because a unit is read by layers in an order that depends on the batch. Scalars, such as
    CLIP's temperature, cannot be sharded and stay whole.
    """
    mesh = init_device_mesh(processes.device.type, (processes.size,))
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    layers = {name for part in parts for name in part._no_split_modules or ()}
    for module in list(model.modules()):
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh, ignored_params={value for value in model.parameters() if value.dim() == 0})
    for name in ENTRANCES:
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)


@contextmanager
def resting(model: nn.Module) -> Iterator[None]:
    """Inside the block and after it, every process holds its own shards alone; evaluation leaves the root gathered."""
    reshard(model)
    yield
    reshard(model)


def is_sharded(model: nn.Module) -> bool:
    """Whether a model is sharded over processes."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def reshard(model: nn.Module) -> None:
    """Let go of what was gathered; nothing happens to a model that is not sharded."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(value: Any) -> Any:
    """A tensor with all its shards, nested in mappings and lists or not; every process must ask for it."""
    if isinstance(value, DTensor):
        return value.full_tensor()
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return value


def sharded_like(value: Tensor, target: Tensor) -> Tensor:
    """A whole tensor, equal on all processes, sharded as another of its shape is; every process must ask for it."""
    if not isinstance(target, DTensor):
        return value
    return distribute_tensor(value.to(target.device), target.device_mesh, target.placements)


def whole_adapter(model: Any) -> dict[str, Tensor]:
    """What a checkpoint of an adapted model holds, whole, by name of parameter or buffer; every process must ask."""
    reshard(model)
    with torch.no_grad():
        values = {
            name: whole(value)
            for name, value in model.named_parameters()
            if value.requires_grad or name.startswith("weft.")
        }
    return values | dict(model.named_buffers())


def shard_states(optimizer: torch.optim.Optimizer) -> None:
    """Shard the states of an optimiser that were loaded whole."""
    for group in optimizer.param_groups:
        for value in group["params"]:
            state = optimizer.state[value]
            for name, moment in state.items():
                if isinstance(moment, Tensor) and moment.shape == value.shape:
                    state[name] = sharded_like(moment, value)
