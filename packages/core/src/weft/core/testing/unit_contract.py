# ruff: noqa: D102  (the names of tests are sentences)
"""What every unit must keep, as tests that run over any registered unit.

A third party inherits `UnitContract` in its own test file and sets `configs`; pytest collects the rest.
"""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from weft.core import attach, detach, load_adapter, plan
from weft.core.testing.backbones import BATCH, tiny_backbone
from weft.core.unit.method import parse_method
from weft.core.unit.protocol import UnitConfig, units

TASKS = ("vqa", "gqa", "nlvr", "caption")
ROWS = ("caption", "vqa", "nlvr", "gqa")
FLOAT32 = 1e-6
HALF_SHARED = {
    "method": "bottleneck",
    "init": "bert",
    "bottleneck_size": 4,
    "sharing": "half",
    "train_full": ["norms"],
}
"""A method of which every kind of weight is there: of one task, of all tasks, and the backbone's own."""


def with_tasks(config: UnitConfig, backbone: str) -> UnitConfig:
    """The unit as it is if tasks have their own weights in it, otherwise with `sharing: multiple`."""
    model, _ = tiny_backbone(backbone)
    if any(len(bank.slots) > 1 for bank in plan(model, config, TASKS).banks.values()):
        return config
    words = config.model_dump(exclude_unset=True)
    return parse_method({**words, "method": config.method, "sharing": "multiple"})[0]


def adapted(config: Any, backbone: str, tasks: Any = TASKS, *, noise: float = 0.05) -> tuple[Any, Any]:
    """An attached tiny backbone and its batch; noise is added to every slot, so that no unit is the identity."""
    model, batch = tiny_backbone(backbone)
    attach(model, config, tasks)
    torch.manual_seed(1)
    move_slots(model, noise)
    return model, batch


def move_slots(model: Any, std: float) -> None:
    """Add noise to every slot, so that no unit is the identity."""
    with torch.no_grad():
        for _, _, value in model.weft.slots():
            value.add_(torch.randn_like(value) * std)


def move_trained(model: Any, std: float) -> None:
    """Add noise to everything that is trained."""
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value) * std)


def slots_of(model: Any, front: str) -> dict[str, Tensor]:
    """Name within a unit to its one slot, for the banks whose keys begin so."""
    found = [(key, value.detach()) for key, _, value in model.weft.slots() if key.startswith(front)]
    return {key.removeprefix(front): value for key, value in found}


def outputs(model: Any, batch: Any) -> Tensor:
    """What is compared: logits, or both CLIP embeddings."""
    result = model(**batch)
    logits = getattr(result, "logits", None)
    if logits is not None:
        found: Tensor = logits
        return found
    return torch.cat([result.text_embeds, result.image_embeds], dim=-1)


def per_row_loss(model: Any, batch: Any) -> Tensor:
    """A loss that is a sum over rows, so that tasks do not mix in it; shape `(rows,)`.

    Squares alone would be constant where a model returns vectors of length one, as CLIP does.
    """
    values = outputs(model, batch).float().flatten(1)
    slope = torch.linspace(-1, 1, values.shape[1], device=values.device)
    return (values.square() + slope * values).mean(dim=1)


def rows_of(batch: Any, rows: list[int]) -> Any:
    """The part of a batch that belongs to some rows."""
    return {name: value[rows] if isinstance(value, Tensor) else value for name, value in batch.items()}


def gradients(model: Any) -> dict[str, Tensor]:
    """Name to gradient of all that has one, copied."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_rows_are_single(model: Any, batch: Any) -> None:
    """Assert that a mixed batch has the losses and gradients of passes of one row and task each."""
    with model.route(tasks=list(ROWS)):
        losses = per_row_loss(model, batch)
    losses.sum().backward()
    mixed = gradients(model)
    model.zero_grad()
    for row, task in enumerate(ROWS):
        with model.route(task=task):
            loss = per_row_loss(model, rows_of(batch, [row]))
        torch.testing.assert_close(loss[0], losses[row], atol=FLOAT32, rtol=FLOAT32)
        loss.sum().backward()
    single = gradients(model)
    assert mixed.keys() == single.keys()
    for name, gradient in mixed.items():
        torch.testing.assert_close(gradient, single[name], atol=FLOAT32, rtol=1e-5, msg=name)


def checkpoint_activations(model: Any, *, use_reentrant: bool = False) -> None:
    """Let a model compute its activations again in the backward pass; releases name the method differently."""
    name = "activation_checkpointing_enable"
    enable = getattr(model, name if hasattr(model, name) else "gradient_checkpointing_enable")
    enable({"use_reentrant": use_reentrant})


def pytest_ids(value: Any) -> str:
    """Name of a parameter in a test's id."""
    return value.label if isinstance(value, UnitConfig) else str(value)


def registered() -> list[UnitConfig]:
    """The example of every registered unit that has slots, and does not only train parameters of the backbone."""
    return [config.example() for config in units().values() if config.parts]


def _t5_looks_up_attention() -> bool:
    from weft.core.unit.attention import looks_up_attention

    model, _ = tiny_backbone("t5")
    return looks_up_attention(model.encoder.block[0].layer[0].SelfAttention)


class UnitContract:
    """The contract. Set `configs` and `backbones` in a subclass.

    Class attributes:
        configs: Configurations tested.
        backbones: Names of tiny backbones tested.
        own_backbones: Method to the same, where not every backbone has sites for it.
    """

    configs: ClassVar[list[UnitConfig]] = []
    backbones: ClassVar[list[str]] = ["bart", "t5", "clip"]
    own_backbones: ClassVar[dict[str, list[str]]] = {
        "adaptformer": ["clip"],
        "aim": ["clip"],
        "convpass": ["clip"],
        "key_value_branch": ["bart", "t5"],
        "lst": ["clip"],
        "mma": ["clip"],
        "prompt": ["visual_seq2seq", "bart", "t5", "clip"],
        "st_adapter": ["clip"],
        "uniadapter": ["t5", "clip"],
        "vpt": ["clip"],
    }

    def _backbones_of(self, config: UnitConfig) -> list[str]:
        if config.method == "prefix":
            # T5 looks its attention function up since transformers 5.17.
            return [name for name in self.backbones if name != "t5" or _t5_looks_up_attention()]
        return self.own_backbones.get(config.method, self.backbones)

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Every configuration on every backbone it has sites in."""
        cases = [
            pytest.param(config, backbone, id=f"{config.label}-{backbone}")
            for config in self.configs
            for backbone in self._backbones_of(config)
        ]
        if "config" in metafunc.fixturenames:
            metafunc.parametrize(("config", "backbone"), cases)

    def test_counts_equal_the_plan(self, config: UnitConfig, backbone: str) -> None:
        model, _ = tiny_backbone(backbone)
        before = sum(value.numel() for value in model.parameters())
        planned = plan(model, with_tasks(config, backbone), TASKS)
        attach(model, with_tasks(config, backbone), TASKS)
        added = sum(value.numel() for value in model.weft.parameters())
        assert added == planned.total_parameters - before
        trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
        assert trained == planned.trainable_parameters

    def test_defaults_start_as_the_backbone(self, config: UnitConfig, backbone: str) -> None:
        fields = config.start_fields or ()
        assert not {"init", *fields} & config.model_fields_set, "an example leaves the start to the defaults"
        model, batch = tiny_backbone(backbone)
        # T5's attention takes another kernel when its weights need gradients.
        with torch.no_grad():
            expected = outputs(model, batch)
            attach(model, config)
            found = outputs(model, batch)
        if config.start_fields is None:
            assert "cannot start as the backbone" in str(type(config).__doc__)
            assert not torch.equal(found, expected)
        else:
            assert torch.equal(found, expected)

    def test_detach_gives_the_backbone_back(self, config: UnitConfig, backbone: str) -> None:
        model, batch = tiny_backbone(backbone)
        names, expected = list(model.state_dict()), outputs(model, batch)
        classes = [type(module) for module in model.modules()]
        attach(model, config, TASKS)
        assert [name for name in model.state_dict() if not name.startswith("weft.")] == names
        detach(model)
        assert list(model.state_dict()) == names
        assert [type(module) for module in model.modules()] == classes
        assert all(value.requires_grad for value in model.parameters())
        assert torch.equal(outputs(model, batch), expected)

    def test_identity_rows_are_the_backbone(self, config: UnitConfig, backbone: str) -> None:
        model, batch = adapted(with_tasks(config, backbone), backbone)
        plain, _ = tiny_backbone(backbone)
        expected = outputs(plain.requires_grad_(False), batch)
        with model.route(tasks=["vqa", None, None, "gqa"]):
            found = outputs(model, batch)
        torch.testing.assert_close(found[1:3], expected[1:3], atol=FLOAT32, rtol=FLOAT32)
        changed = (found - expected).abs().flatten(1).amax(dim=1)
        assert changed[[0, 3]].min() > 10 * changed[[1, 2]].max()
        with model.disable_adapter():
            assert torch.equal(outputs(model, batch), expected)

    def test_mixed_batch_equals_single_task_passes(self, config: UnitConfig, backbone: str) -> None:
        assert_rows_are_single(*adapted(with_tasks(config, backbone), backbone))

    def test_absent_tasks_keep_their_slots(self, config: UnitConfig, backbone: str) -> None:
        model, batch = adapted(with_tasks(config, backbone), backbone)
        model.train()
        trained = [value for value in model.parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=0.1, weight_decay=0.1)
        before = {(key, slot): value.clone() for key, slot, value in model.weft.slots()}
        with model.route(tasks=["vqa", "vqa", "gqa", None]):
            per_row_loss(model, batch).sum().backward()
        optimizer.step()
        changed = {
            slot for key, slot, value in model.weft.slots() if not torch.equal(value, before[key, slot])
        }
        assert changed == {"vqa", "gqa"} or changed == {"vqa", "gqa", "shared"}

    def test_frozen_weights_stay_bit_equal(self, config: UnitConfig, backbone: str) -> None:
        model, batch = adapted(config, backbone)
        frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
        with model.route(tasks=list(ROWS)):
            per_row_loss(model, batch).sum().backward()
        optimizer.step()
        after = dict(model.named_parameters())
        assert frozen
        assert all(torch.equal(after[name], value) for name, value in frozen.items())

    def test_checkpoint_round_trip(self, config: UnitConfig, backbone: str, tmp_path: Path) -> None:
        model, batch = adapted(with_tasks(config, backbone), backbone)
        model.save_pretrained(tmp_path)
        other, _ = tiny_backbone(backbone)
        load_adapter(other, tmp_path)
        for routing in (ROWS, ROWS[::-1]):
            with model.route(tasks=list(routing)):
                expected = outputs(model, batch)
            with other.route(tasks=list(routing)):
                assert torch.equal(outputs(other, batch), expected)

    def test_one_task_can_be_loaded_alone(self, config: UnitConfig, backbone: str, tmp_path: Path) -> None:
        model, batch = adapted(with_tasks(config, backbone), backbone)
        model.save_pretrained(tmp_path)
        other, _ = tiny_backbone(backbone)
        load_adapter(other, tmp_path, tasks=["nlvr"])
        with model.route(task="nlvr"):
            expected = outputs(model, batch)
        torch.testing.assert_close(outputs(other, batch), expected, atol=FLOAT32, rtol=FLOAT32)

    def test_copies_are_independent(self, config: UnitConfig, backbone: str) -> None:
        model, batch = adapted(config, backbone)
        model.set_task(TASKS[1])
        expected = outputs(model, batch)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301  (its own pickle)
            assert torch.equal(outputs(other, batch), expected)
            with torch.no_grad():
                for _, _, value in other.weft.slots():
                    value.add_(0.5)
            assert not torch.equal(outputs(other, batch), expected)
            assert torch.equal(outputs(model, batch), expected)

    def test_bfloat16_activations_keep_float32_weights(self, config: UnitConfig, backbone: str) -> None:
        model, batch = tiny_backbone(backbone)
        attach(model.bfloat16(), config, TASKS)
        model.set_task(TASKS[1])
        cast = {
            name: value.bfloat16() if isinstance(value, Tensor) and value.is_floating_point() else value
            for name, value in batch.items()
        }
        assert outputs(model, cast).dtype == torch.bfloat16
        assert all(value.dtype == torch.float32 for value in model.weft.parameters())


assert len(ROWS) == BATCH
