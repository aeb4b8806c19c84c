# ruff: noqa: D102  (the names of tests are sentences)
"""What every few-shot head must keep, as tests that run over any registered head.

A third party inherits `HeadContract` in its own test file and sets `configs`; pytest collects the rest.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from weft.core.errors import FewShotError
from weft.core.few_shot.adaptable import AdaptableEncoder
from weft.core.few_shot.encoder import ImageTextEncoder
from weft.core.few_shot.head import load_head, make_head
from weft.core.few_shot.head_config import HEADS
from weft.core.few_shot.image_head import ImageHead
from weft.core.few_shot.methods.coop import CoOp

CLASSES, SHOTS, WIDTH = 5, 3, 24
_SIDE = 8
_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
DEVICES = ["cpu", pytest.param("cuda", marks=_GPU)]


class FixedPrompts:
    """A text encoder for prompts without any text: a fixed map from the mean context, of a width, to class features."""

    def __init__(self, width: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.width = width
        self.names = torch.randn(CLASSES, WIDTH, generator=generator)
        self.map = torch.randn(width, WIDTH, generator=generator)

    def __call__(self, context: Tensor) -> Tensor:
        """Unit features, shape (..., classes, width of the features)."""
        moved = context.mean(-2, keepdim=True) @ self.map.to(context)
        return functional.normalize(self.names.to(context) + moved, dim=-1)

    def embed(self, text: str) -> Tensor:
        """One token per word."""
        return torch.ones(len(text.split()), self.width)


def samples(seed: int, *, shots: int = SHOTS) -> tuple[Tensor, Tensor]:
    """Unit features around class means, and their classes."""
    means = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(CLASSES).repeat_interleave(shots)
    noise = torch.randn(len(labels), WIDTH, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(means[labels] + noise, dim=-1), labels


def read_by(head: Any, drawn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """What `samples` gives as a head reads it: features as they are, or little pictures of them, and classes."""
    if not isinstance(head, ImageHead):
        return drawn
    features, labels = drawn
    drawing = torch.randn(WIDTH, 3 * _SIDE * _SIDE, generator=torch.Generator().manual_seed(1))
    return (features @ drawing.to(features)).reshape(-1, 3, _SIDE, _SIDE), labels


@cache
def tiny_encoder() -> AdaptableEncoder:
    """A tiny random CLIP of the width of the samples, with a name for every class."""
    from transformers import CLIPConfig, CLIPModel

    from weft.core.testing.backbones import SIZES
    from weft.core.testing.processed.words import ENDS, SENTENCES, tokenizer

    words = tokenizer(template="<s> $A </s>", padding_side="right", model_max_length=16)
    config = CLIPConfig(
        text_config={**SIZES, **ENDS, "vocab_size": len(words), "max_position_embeddings": 16},
        vision_config={**SIZES, "image_size": _SIDE, "patch_size": 4},
        projection_dim=WIDTH,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = ImageTextEncoder(CLIPModel(config), words)
    return AdaptableEncoder(encoder, SENTENCES[:CLASSES], ("{}",))


def equip(head: Any) -> Any:
    """The head, with what it reads prompts or images with, if it needs that."""
    if isinstance(head, CoOp):
        head.use_prompts(FixedPrompts(head.config.context_width))
    if isinstance(head, ImageHead):
        head.use_encoder(tiny_encoder())
    return head


class HeadContract:
    """The contract. Set `configs` in a subclass.

    Class attributes:
        configs: Configurations tested, as dictionaries with `method`; short trainings and coarse grids are enough.
    """

    configs: ClassVar[list[dict[str, Any]]] = []

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Every configuration."""
        if "config" in metafunc.fixturenames:
            metafunc.parametrize("config", self.configs, ids=[one["method"] for one in self.configs])

    def _head(self, config: dict[str, Any], device: str = "cpu") -> Any:
        if issubclass(HEADS[config["method"]].head, ImageHead):
            with torch.no_grad():
                weights = tiny_encoder().class_features()
        else:
            weights = functional.normalize(samples(1, shots=1)[0], dim=-1)
        return equip(make_head(weights, config).to(device))

    def _fitted(self, config: dict[str, Any], seed: int, validation: int | None = None) -> Any:
        head = self._head(config)
        chosen_by = None if validation is None else read_by(head, samples(validation))
        return head.fit(*read_by(head, samples(seed)), chosen_by)

    def test_every_fit_starts_the_selection_over(self, config: dict[str, Any]) -> None:
        head = self._fitted(config, 2, 3)
        assert head.selected_on == "validation"
        head.calibrate(*read_by(head, samples(4)))
        assert head.temperature != 1
        fresh = self._fitted(config, 5)
        head.fit(*read_by(head, samples(5)))
        assert head.selection == fresh.selection
        assert (head.selected_on, head.temperature) == (None, 1)
        queries = read_by(head, samples(6))[0]
        assert torch.equal(head.probabilities(queries), fresh.probabilities(queries))

    def test_a_search_says_what_it_chose_on_and_files_keep_it(
        self, config: dict[str, Any], tmp_path: Path
    ) -> None:
        head = self._fitted(config, 2)
        head.calibrate(*read_by(head, samples(4)))
        found = head.search(*read_by(head, samples(3)))
        assert (head.selected_on, head.temperature) == ("validation", 1)
        assert all(found.selected.get(name, value) == value for name, value in head.selected.items())
        head.calibrate(*read_by(head, samples(4)))
        loaded = load_head(head.save(tmp_path))
        equip(loaded)
        assert loaded.selection == head.selection
        queries = read_by(head, samples(6))[0]
        assert torch.equal(loaded.probabilities(queries), head.probabilities(queries))

    def test_an_unfitted_head_says_so(self, config: dict[str, Any], tmp_path: Path) -> None:
        head = self._head(config)
        if not head.needs_fit:
            assert head.logits(read_by(head, samples(6))[0]).shape == (CLASSES * SHOTS, CLASSES)
            return
        features, labels = read_by(head, samples(6))
        calls: list[Any] = [
            lambda: head.logits(features),
            lambda: head.probabilities(features),
            lambda: head.transfer_logits(features, features),
            lambda: head.search(features, labels),
            lambda: head.calibrate(features, labels),
            lambda: head.explain(features),
            lambda: head.save(tmp_path / "head"),
        ]
        if hasattr(head, "remove_classes"):
            calls.append(lambda: head.remove_classes([0]))
        for call in calls:
            with pytest.raises(FewShotError, match="must be fitted first"):
                call()
        assert not (tmp_path / "head").exists()

    def test_a_failed_fit_leaves_the_head_as_it_was(
        self, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        head = self._fitted(config, 2, 3)
        head.calibrate(*read_by(head, samples(4)))
        before, selection = head.logits(read_by(head, samples(6))[0]), head.selection

        def fail(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(head.config_class.head, "_choose", fail)
        with pytest.raises(KeyboardInterrupt):
            head.fit(*read_by(head, samples(5)), read_by(head, samples(3)))
        with pytest.raises(KeyboardInterrupt):
            head.search(*read_by(head, samples(3)))
        assert torch.equal(head.logits(read_by(head, samples(6))[0]), before)
        assert head.selection == selection

    def test_fitting_and_loading_leave_the_random_numbers_of_the_user(
        self, config: dict[str, Any], tmp_path: Path
    ) -> None:
        torch.manual_seed(3)
        state = torch.get_rng_state()
        seeds: list[int] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "manual_seed_all", seeds.append)
            head = self._fitted(config, 2, 3)
            load_head(head.save(tmp_path))
        assert torch.equal(torch.get_rng_state(), state)
        assert not seeds

    @pytest.mark.parametrize("device", DEVICES)
    def test_inputs_of_any_device_are_taken(self, config: dict[str, Any], device: str) -> None:
        head = self._head(config, device)
        queries = read_by(head, samples(6))[0]
        expected = self._fitted(config, 2, 3).logits(queries)
        for place in dict.fromkeys(["cpu", device]):
            features, labels = (value.to(place) for value in read_by(head, samples(2)))
            validation = tuple(value.to(place) for value in read_by(head, samples(3)))
            head.fit(features, labels, validation)
            head.search(*validation)
            head.calibrate(*validation)
            logits = head.logits(queries.to(place))
            assert logits.device.type == torch.device(device).type
            torch.testing.assert_close(logits.cpu(), expected, rtol=1e-2, atol=0.1)
            head.explain(queries.to(place))
            if hasattr(head, "cache") and not config["method"].startswith("ape"):
                new = functional.normalize(torch.ones(1, WIDTH, device=place), dim=-1)
                head.add_classes(new, new, torch.tensor([CLASSES], device=place))
                head.remove_classes([CLASSES])
