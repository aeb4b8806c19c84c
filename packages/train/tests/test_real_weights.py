"""Pretrained weights against what they were converted from; `nox -s real` installs them, other sessions skip this."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from weft.core.composites import load_efficientnet_lite
from weft.core.few_shot import ImageTextEncoder
from weft.data import load_dataset
from weft.train.backbones.encoders import load_encoder
from weft.train.backbones.packaged.dinov2 import load_dinov2
from weft.train.backbones.packaged.dual import build_dual, load_parts, transform_of, unseen_classes
from weft.train.backbones.packaged.packages import DINOV2_SMALL, EFFICIENTNET_LITE
from weft.train.recipe.few_shot import EncoderSection

CLOTHING = "alexeygrigorev+clothing-dataset-small/images_short80.zip"
NAMES = {"longsleeve": "long-sleeve shirt"}
# Zero-shot accuracy on 372 photos of clothes whose short side is 80 pixels, in per cent; see docs/real_weights.md.
FLOORS = {(0, "kernel"): 42, (2, "linear"): 45, (2, "kernel"): 50}
UNSEEN = {
    "linear": {"photo": 44, "gloss": 53, "description": 57},
    "kernel": {"photo": 50, "gloss": 60, "description": 64},
}

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("efficientnet_lite_pytorch") is None, reason="run `nox -s real`"
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the exporter and of the original
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning"),  # of the exporter
]


@pytest.mark.parametrize("size", range(3))
def test_the_feature_maps_are_those_of_the_original_to_the_bit(size: int) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    path = EFFICIENTNET_LITE[size].located()
    model, _ = load_efficientnet_lite(path, size)
    original = EfficientNet.from_pretrained(f"efficientnet-lite{size}", weights_path=str(path)).eval()
    side = model.config.image_size
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(pixel_values=pixels).last_hidden_state, original.extract_features(pixels))


def test_dinov2_is_the_backbone_of_the_file_it_is_read_from() -> None:
    import onnx
    import onnxruntime

    file = onnx.load(DINOV2_SMALL.located())
    last = [node for node in file.graph.node if node.name.startswith("/backbone/layernorm")][-1].output[0]
    file.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(file.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = torch.from_numpy(session.run([last], {session.get_inputs()[0].name: pixels.numpy()})[0])
    with torch.no_grad():
        found = load_dinov2()(pixel_values=pixels).last_hidden_state
    assert (found - expected).abs().max() < 1e-3 * expected.abs().mean()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], Path]:
    """Every encoder of the floors, saved."""
    folders = {key: tmp_path_factory.mktemp(f"lite{key[0]}-{key[1]}") for key in FLOORS}
    for (size, projection), folder in folders.items():
        build_dual(size, projection, folder)  # type: ignore[arg-type]  # a key of FLOORS
    return folders


@pytest.mark.parametrize("key", FLOORS, ids=lambda key: f"lite{key[0]}-{key[1]}")
def test_the_dual_encoder_computes_what_onnx_runtime_computes(
    built: dict[tuple[int, str], Path], key: tuple[int, str], tmp_path: Path
) -> None:
    import onnxruntime

    encoder, _ = load_encoder(EncoderSection(name=str(built[key])))
    tokens = encoder.tokens(["a photo of a shirt.", "a small dog that sleeps on a red sofa."])
    side = encoder.model.config.vision_config.image_size
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    names = ("input_ids", "attention_mask", "pixel_values")
    inputs = (tokens["input_ids"], tokens["attention_mask"], pixels)
    both = Both(encoder.model).eval()
    torch.onnx.export(both, inputs, str(tmp_path / "model.onnx"), input_names=list(names), dynamo=True)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    given = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    expected = session.run(None, given)
    with torch.no_grad():
        found = both(*inputs)
    for own, other in zip(found, expected, strict=True):
        assert (own - torch.from_numpy(other)).abs().max() <= 1e-5


class Both(torch.nn.Module):
    """Features of texts and images as a pair of tensors."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, pixel_values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values)
        return found.text_embeds, found.image_embeds


@pytest.mark.parametrize("projection", UNSEEN)
def test_texts_about_unseen_classes_find_their_vectors_among_two_hundred(projection: str) -> None:
    found = unseen_classes(load_parts(2, projection))  # type: ignore[arg-type]  # a key of UNSEEN
    assert all(found[kind] >= floor for kind, floor in UNSEEN[projection].items()), found


@pytest.mark.parametrize("key", FLOORS, ids=lambda key: f"lite{key[0]}-{key[1]}")
def test_photos_of_clothes_find_their_names(
    realdata: Path, built: dict[tuple[int, str], Path], key: tuple[int, str]
) -> None:
    encoder, transform = load_encoder(EncoderSection(name=str(built[key])))
    records = load_dataset("image_folder", root=str(realdata / CLOTHING), split="test")
    weights = encoder.class_weights([NAMES.get(name, name) for name in records.class_names])
    assert zero_shot(encoder, transform, records, weights) >= FLOORS[key]


def zero_shot(encoder: ImageTextEncoder, transform: object, records: object, weights: torch.Tensor) -> float:
    right = 0
    for start in range(0, len(records), 31):  # type: ignore[arg-type]
        batch = [records[k] for k in range(start, min(start + 31, len(records)))]  # type: ignore[index, arg-type]
        pixels = torch.stack([torch.from_numpy(transform(record.image.image())) for record in batch])  # type: ignore[operator]
        best = (encoder.encode_images(pixels) @ weights.T).argmax(1)
        right += int((best == torch.tensor([record.label for record in batch])).sum())
    return 100 * right / len(records)  # type: ignore[arg-type]


def test_the_image_processor_gives_the_values_that_lite_reads() -> None:
    from PIL import Image

    model = load_parts(0, "linear").model
    pixels = transform_of(model)(Image.new("RGB", (80, 60), (0, 127, 255)))
    assert pixels[:, 5, 5].tolist() == pytest.approx([-127 / 128, 0, 1], abs=1e-6)
