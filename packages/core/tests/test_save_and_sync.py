"""What must not happen: saving asks no network, and a routed pass never waits for the device."""

import socket

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from weft.core.testing.unit_contract import (
    ROWS,
    UnitContract,
    adapted,
    per_row_loss,
    pytest_ids,
    registered,
    with_tasks,
)

MULTIPLE = {
    "method": "bottleneck",
    "init": "bert",
    "bottleneck_size": 4,
    "sharing": "multiple",
    "train_full": ["norms"],
}
# Reading a value back, or a shape that depends on one, makes the host wait for the device.
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "unique")


def test_saving_asks_no_network(tmp_path, monkeypatch):
    def refused(*args, **kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    model, _ = adapted(MULTIPLE, "bart")
    model.config._name_or_path = "someone/on-the-hub"
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"weft_config.json", "adapter_model.safetensors"}


class Waits(TorchDispatchMode):
    """Notes every operation that would make the host wait."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in WAITS:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def noted(call):
    with Waits() as mode:
        call()
    return sorted(mode.seen)


CASES = [
    pytest.param(config, backbone, id=f"{pytest_ids(config)}-{backbone}")
    for config in registered()
    for backbone in UnitContract()._backbones_of(config)
]


@pytest.mark.parametrize(("config", "backbone"), CASES)
def test_a_mixed_pass_waits_for_the_device_no_more_than_the_backbone(config, backbone):
    model, batch = adapted(with_tasks(config, backbone), backbone)
    with model.disable_adapter():
        plain = noted(lambda: per_row_loss(model, batch))
    with model.route(tasks=list(ROWS)):
        assert noted(lambda: per_row_loss(model, batch).sum().backward()) == plain


def test_what_waits_is_noted():
    assert noted(lambda: (torch.ones(1).item(), torch.ones(2).nonzero())) == [
        "_local_scalar_dense",
        "nonzero",
    ]
