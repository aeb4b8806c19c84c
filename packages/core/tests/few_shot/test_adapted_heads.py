"""Heads that adapt the encoder: they start as it is, learn, are kept whole, and leave it as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel

from weft.core.composites import DualEncoder, DualEncoderConfig
from weft.core.errors import BackboneError, FewShotError, WeftError
from weft.core.few_shot import AdaptableEncoder, Images, ImageTextEncoder, heads, load_head, make_head
from weft.core.few_shot.adapted_head import AdaptedHead
from weft.core.few_shot.image_head import ImageHead
from weft.core.testing.processed import encoders

NAMES = ["red square", "blue_circle", "green triangle"]
SIDE = 32
# Few steps at high rates, for a model that never saw a picture.
FAST: dict[str, dict[str, Any]] = {
    "clip_lora": {"steps_per_shot": 10, "learning_rate": 0.02, "dropout": 0.0},
    "mma": {"epochs": 40, "scale": 0.5, "optimizer": "adamw", "learning_rate": 0.01},
    "mmrl": {"epochs": 40, "learning_rate": 0.02, "token_size": 8, "penalty": 0.0},
    "two_sfs": {"steps_per_shot": 10, "learning_rate": 0.02},
    "uniadapter": {"steps_per_shot": 10, "learning_rate": 0.02, "bottleneck_size": 4, "scale": 1.0},
    "prolip": {"epochs": 60, "learning_rate": 0.02, "penalty": 0.0},
}
HEADS = [name for name in heads() if issubclass(heads()[name].head, ImageHead)]
NEEDS_PROJECTION = {"prolip"}
NEEDS_CLIP = {"mmrl"}
STARTS_OTHERWISE = {"mmrl"}
ENCODERS = ["clip", "siglip", "dual_encoder"]


def encoder_of(name: str) -> ImageTextEncoder:
    torch.manual_seed(0)
    if name in ("dual_encoder", "efficientnet"):
        _, processor = encoders.clip()
        words = processor.tokenizer
        size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        text = {"model_type": "clip_text_model", "vocab_size": len(words), **size}
        vision = {"model_type": "clip_vision_model", "image_size": SIDE, "patch_size": 8, **size}
        if name == "efficientnet":
            vision = {"model_type": "efficientnet", "image_size": SIDE, "width_coefficient": 0.25}
            vision |= {"depth_coefficient": 0.25, "hidden_dim": 320}
        return ImageTextEncoder(DualEncoder(DualEncoderConfig(text, vision, projection_size=12)), words)
    model, processor = getattr(encoders, name)()
    return ImageTextEncoder(model, processor.tokenizer)


def pictures(shots: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise around a picture of each class."""
    means = torch.randn(len(NAMES), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    labels = torch.arange(len(NAMES)).repeat_interleave(shots)
    noise = torch.randn(len(labels), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return means[labels] + 0.3 * noise, labels


def made(method: str, encoder: ImageTextEncoder, **settings: Any) -> Any:
    head = make_head(encoder.class_weights(NAMES), {"method": method, "logit_scale": 20.0, **settings})
    assert isinstance(head, ImageHead)
    head.use_encoder(AdaptableEncoder(encoder, NAMES))
    return head


def zero_shot(encoder: ImageTextEncoder, images: torch.Tensor) -> torch.Tensor:
    return 20 * encoder.encode_images(images) @ encoder.class_weights(NAMES).T


def works_on(method: str, encoder: str) -> bool:
    return encoder == "clip" or method not in NEEDS_CLIP | (
        NEEDS_PROJECTION if encoder == "siglip" else set()
    )


PAIRS = [(method, encoder) for method in HEADS for encoder in ENCODERS if works_on(method, encoder)]


@pytest.mark.parametrize(("method", "name"), [pair for pair in PAIRS if pair[0] not in STARTS_OTHERWISE])
def test_an_untrained_head_scores_as_zero_shot(method: str, name: str) -> None:
    encoder = encoder_of(name)
    nothing = {"epochs": 0, "steps_per_shot": None}
    head = made(method, encoder, **nothing).fit(*pictures())
    images = pictures(seed=1)[0]
    torch.testing.assert_close(head.logits(images), zero_shot(encoder, images), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("method", "name"), PAIRS)
def test_a_head_learns_and_leaves_the_encoder_as_it_was(method: str, name: str, tmp_path: Path) -> None:
    encoder = encoder_of(name)
    model = encoder.model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    parts = [type(module) for module in model.modules()]
    images, labels = pictures()
    head = made(method, encoder, **FAST[method]).fit(images, labels)
    start = functional.cross_entropy(zero_shot(encoder, images), labels)
    assert float(functional.cross_entropy(head.logits(images), labels)) < 0.5 * float(start)
    others = head.logits(pictures(seed=1)[0]).argmax(1)
    assert (others == labels).double().mean() > 0.6  # chance is a third
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [type(module) for module in model.modules()] == parts
    assert not any(value.requires_grad for value in [*model.parameters(), *head.parameters()])
    assert not model.training

    loaded = load_head(head.save(tmp_path))
    with pytest.raises(FewShotError, match=r"must have an encoder to read images with.*`head.use_encoder\("):
        loaded.logits(images)
    assert isinstance(loaded, ImageHead)
    loaded.use_encoder(AdaptableEncoder(encoder, NAMES))
    assert torch.equal(loaded.logits(images), head.logits(images))


@pytest.mark.parametrize("method", HEADS)
def test_a_fitted_head_takes_no_other_encoder(method: str, tmp_path: Path) -> None:
    encoder = encoder_of("clip")
    nothing = {"epochs": 0, "steps_per_shot": None}
    loaded = load_head(made(method, encoder, **nothing).fit(*pictures()).save(tmp_path))
    assert isinstance(loaded, ImageHead)
    with pytest.raises(FewShotError, match="must be for the 3 classes of this head, but is for 2"):
        loaded.use_encoder(AdaptableEncoder(encoder, NAMES[:2]))
    other = encoder_of("clip")
    with torch.no_grad():
        other.model.visual_projection.weight[0, 0] += 1
    with pytest.raises(
        FewShotError, match=r"must be the encoder that this .* was fitted on, but its weights are"
    ):
        loaded.use_encoder(AdaptableEncoder(other, NAMES))


@pytest.mark.parametrize("method", HEADS)
def test_images_are_read_a_few_at_a_time(method: str) -> None:
    images, labels = pictures()
    read: list[int] = []

    def one(rows: Any, view: int) -> torch.Tensor:
        read.append(len(rows))
        return images[list(rows)] + view

    views = torch.stack([images, images + 1])
    quick = {"epochs": 2, "steps_per_shot": None}
    lazily = made(method, encoder_of("clip"), **quick).fit(Images(one, len(images), 2), labels)
    at_once = made(method, encoder_of("clip"), **quick).fit(views, labels)
    expected = at_once.logits(images)
    torch.testing.assert_close(lazily.logits(images), expected, rtol=1e-4, atol=1e-3)
    whole = Images(one, len(images))
    torch.testing.assert_close(lazily.logits(whole), expected, rtol=1e-4, atol=1e-3)
    assert [len(part) for part in whole.split(5)] == [5, 5, 2]
    assert lazily.explain(whole, top=1)[3].predicted == int(expected[3].argmax())


@pytest.mark.parametrize("method", HEADS)
def test_what_is_no_image_is_refused(method: str) -> None:
    head = made(method, encoder_of("clip"))
    images, labels = pictures()
    with pytest.raises(
        FewShotError, match=r"must be images, because this head adapts the encoder.*not features"
    ):
        head.fit(torch.randn(12, 8), labels)
    images[7, 0, 3, 3] = torch.nan
    with pytest.raises(FewShotError, match="must be finite, but 1 images are not, such as number 7"):
        head.fit(images, labels)


@pytest.mark.parametrize("method", sorted(NEEDS_PROJECTION))
def test_an_encoder_without_a_projection_is_refused(method: str) -> None:
    with pytest.raises(
        BackboneError, match=r"must end in a linear map .* but SiglipModel does not.*clip_lora"
    ):
        made(method, encoder_of("siglip")).fit(*pictures())


@pytest.mark.parametrize("name", ["siglip", "dual_encoder"])
def test_an_encoder_whose_towers_pool_otherwise_is_refused(name: str) -> None:
    with pytest.raises(
        BackboneError, match=r"must be a CLIP of transformers.*but is a (Siglip|Dual).*clip_lora"
    ):
        made("mmrl", encoder_of(name)).fit(*pictures())


def test_maps_that_an_encoder_does_not_have_are_refused() -> None:
    head = made("clip_lora", encoder_of("clip"), linears=["gate"])
    with pytest.raises(WeftError, match="gate"):
        head.fit(*pictures())


def test_images_are_read_once_where_their_tower_stays() -> None:
    images, labels = pictures()
    read: list[int] = []

    def one(rows: Any, view: int) -> torch.Tensor:
        read.extend(rows)
        return images[list(rows)]

    made("clip_lora", encoder_of("clip"), towers=["text"], steps_per_shot=10).fit(Images(one, 12), labels)
    assert sorted(read) == list(range(12))


def test_a_tower_that_would_stay_as_it_is_must_not_be_named() -> None:
    encoder = encoder_of("efficientnet")
    with pytest.raises(
        FewShotError, match=r"`towers` must name towers that 'lora' changes, .* in the vision tower"
    ):
        made("clip_lora", encoder).fit(*pictures())
    every = made("clip_lora", encoder, linears=["query", "up", "down"], **FAST["clip_lora"]).fit(*pictures())
    text = made("clip_lora", encoder, towers=["text"], **FAST["clip_lora"]).fit(*pictures())
    words = [{name.split(".")[1] for name, _ in head.held.named_parameters()} for head in (every, text)]
    assert words == [{"text", "vision"}, {"text"}]


@pytest.mark.parametrize("method", HEADS)
def test_other_classes_are_known_by_their_names(method: str) -> None:
    encoder = encoder_of("clip")
    dropping = {"dropout": 0.5} if "dropout" in FAST[method] else {}  # in training alone
    head = made(method, encoder, **{**FAST[method], **dropping}).fit(*pictures())
    others = ["one star", "yellow hexagon", "small blue circle", "blue circle"]
    weights, images = encoder.class_weights(others), pictures(seed=1)[0]
    moved = head.for_classes(weights, AdaptableEncoder(encoder, others))
    assert moved.logits(images).shape == (12, 4)
    torch.testing.assert_close(
        moved.logits(images), moved.transfer_logits(images, moved.class_features()), rtol=1e-4, atol=1e-3
    )
    if isinstance(head, AdaptedHead):  # a name that it was fitted on is read as then
        as_then = head.transfer_logits(images, head.named)[:, 1]
        torch.testing.assert_close(moved.logits(images)[:, 3], as_then, rtol=1e-3, atol=1e-2)


def test_the_steps_of_mma_are_those_of_gradients_over_its_factor() -> None:
    config: Any = heads()["mma"](scale=0.01)  # type: ignore[call-arg]
    head = made("mma", encoder_of("clip"), scale=0.01)
    options = head.options()
    assert (options.learning_rate, options.weight_decay) == pytest.approx((0.15, 5e-6))
    rate, decay, gradient, value = config.learning_rate, config.weight_decay, 3.0, 2.0
    ours = options.learning_rate * (gradient + options.weight_decay * value)
    assert ours == pytest.approx(rate * (gradient / 0.01 + decay * value))
    assert made("mma", encoder_of("clip"), scale=0.01, optimizer="adamw").options().learning_rate == rate


def test_2sfs_tunes_norms_first_and_then_the_classifier_alone() -> None:
    encoder = encoder_of("clip")
    settings = {"steps_per_shot": 10, "learning_rate": 0.02}
    names_alone = made("two_sfs", encoder, first_share=1.0, **settings).fit(*pictures())
    rows_alone = made("two_sfs", encoder, first_share=0.0, **settings).fit(*pictures())
    assert torch.equal(names_alone.classifier, names_alone.named)
    assert not torch.equal(rows_alone.classifier, rows_alone.named)
    own = dict(encoder.model.named_parameters())
    assert all(torch.equal(value, own[_path(name)]) for name, value in rows_alone.held.named_parameters())
    assert not all(
        torch.equal(value, own[_path(name)]) for name, value in names_alone.held.named_parameters()
    )
    config: Any = names_alone.config
    both = config.model_copy(update={"first_share": 0.6, "steps_per_shot": 300})
    assert [both.stage(first=first).steps(40, 10) for first in (True, False)] == [720, 480]


def _path(key: str) -> str:
    """The parameter of a tiny CLIP that a key of its norms stands for."""
    words = key.removeprefix("full.").split(".")
    if words[1].isdigit():
        words = [f"{words[0]}_model", "encoder", "layers", *words[1:]]
    return ".".join(words)


def test_class_weights_of_other_texts_are_refused() -> None:
    encoder = encoder_of("clip")
    head = made("clip_lora", encoder)
    head.use_encoder(AdaptableEncoder(encoder, NAMES, ["what shape is that? {} yes or no"]))
    with pytest.raises(
        FewShotError, match="`class_weights` must be the features of the texts that the encoder"
    ):
        head.fit(*pictures())


def test_an_encoder_wears_the_units_of_one_head_at_a_time() -> None:
    encoder = encoder_of("clip")
    first, second = (made("clip_lora", encoder, steps_per_shot=1).fit(*pictures()) for _ in range(2))
    with first.wearing(), pytest.raises(FewShotError, match="must have no units when a head puts on its own"):
        second.logits(pictures()[0])
    assert torch.equal(first.logits(pictures()[0]), second.logits(pictures()[0]))


def test_units_with_tensors_that_nothing_trains_are_refused() -> None:
    encoder = AdaptableEncoder(encoder_of("clip"), NAMES)
    with pytest.raises(FewShotError, match="`units` must train every tensor that a head holds, but vera"):
        encoder.start({"method": "vera", "rank": 2})


def test_counts_on_a_clip_of_the_size_of_vit_b_16() -> None:
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(vision_config={"patch_size": 16}))
    text, vision, common, layers = 512, 768, 512, 12
    expected = {
        "clip_lora": layers * 3 * 2 * 2 * (text + vision),
        "prolip": vision * common,
        "two_sfs": (2 * layers + 1) * 2 * text + (2 * layers + 2) * 2 * vision,
        "mma": 8 * sum(width * 32 + 32 + 32 * width + width for width in (text, vision)) + 8 * (32 * 32 + 32),
        "mmrl": 5 * 512 + 7 * 513 * (text + vision) + vision * common,
    }
    found = {name: heads()[name]().trained_within(model) for name in expected}  # type: ignore[call-arg]
    assert found == expected
    assert expected["mma"] == 674_560


def test_the_steps_of_a_training_go_with_the_images_of_a_class() -> None:
    config = heads()["clip_lora"](steps_per_shot=500)  # type: ignore[call-arg]
    assert config.steps(16 * 10, 10) == 8000  # type: ignore[attr-defined]
    assert heads()["clip_adapter"](epochs=3, batch_size=32).steps(33, 3) == 6  # type: ignore[call-arg, attr-defined]


class Pooled(nn.Module):
    """The end of open_clip's towers: a matrix that is multiplied by, or a map of an attention, never called."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.visual = nn.Module()
        if kind == "matrix":
            self.visual.proj = nn.Parameter(torch.randn(6, 4))
        else:
            self.visual.attnpool = nn.Module()
            self.visual.attnpool.c_proj = nn.Linear(6, 4)

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        pooled = image.flatten(1)[:, :6]
        if hasattr(self.visual, "proj"):
            return pooled @ self.visual.proj
        last = self.visual.attnpool.c_proj
        return functional.linear(pooled, last.weight, last.bias)

    def encode_text(self, text: torch.Tensor) -> torch.Tensor:
        return text


@pytest.mark.parametrize("kind", ["matrix", "map"])
def test_prolip_trains_the_maps_of_open_clip(kind: str) -> None:
    torch.manual_seed(0)
    encoder = ImageTextEncoder(
        Pooled(kind), lambda texts: torch.tensor([[len(text), text.count("e"), 1.0, 2.0] for text in texts])
    )
    images, labels = pictures()
    start = zero_shot(encoder, images)
    head = made("prolip", encoder, epochs=0).fit(images, labels)
    torch.testing.assert_close(head.logits(images), start, rtol=1e-4, atol=1e-3)
    head = made("prolip", encoder, **FAST["prolip"]).fit(images, labels)
    assert float(functional.cross_entropy(head.logits(images), labels)) < float(
        functional.cross_entropy(start, labels)
    )
    torch.testing.assert_close(zero_shot(encoder, images), start)


def test_prolip_is_held_to_the_map_that_it_starts_from() -> None:
    encoder = encoder_of("clip")
    own = encoder.model.visual_projection.weight
    moved = {
        penalty: float(
            (
                made("prolip", encoder, **{**FAST["prolip"], "penalty": penalty}).fit(*pictures()).projection
                - own
            ).norm()
        )
        for penalty in (0.0, 1.0, 100.0)
    }
    assert moved[0.0] > moved[1.0] > moved[100.0] > 0
    stated = made("prolip", encoder, **{**FAST["prolip"], "penalty": 1 / 4}).fit(*pictures()).projection
    default = made("prolip", encoder, **{**FAST["prolip"], "penalty": None}).fit(*pictures()).projection
    assert torch.equal(stated, default)
