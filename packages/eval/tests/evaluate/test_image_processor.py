"""Pixels are those of the model's own image processor, bit for bit, whatever its settings and the picture's shape."""

import io
import json
import pickle
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from transformers import AutoImageProcessor, CLIPConfig
from transformers.utils import is_torchvision_available

from weft.core.composites import DualEncoderConfig
from weft.data import MediaRef
from weft.data.errors import CorruptMediaError
from weft.data.media.transforms import ImageTransform
from weft.eval.errors import ImageProcessorError
from weft.eval.evaluate.augmented import AugmentedPixels
from weft.eval.evaluate.visual import Pixels
from weft.eval.readers.image_processor import ProcessorTransform, load_transform, square_transform
from weft.eval.readers.processor import processed
from weft.eval.readers.rows import ask, decoded

SHAPES = [(64, 32), (33, 57), (300, 200), (224, 224)]
WHOLE = {
    "clip": {"image_processor_type": "CLIPImageProcessor"},
    "clip with its old name": {"feature_extractor_type": "CLIPFeatureExtractor"},
    "clip with its fast name": {"image_processor_type": "CLIPImageProcessorFast"},
    "blip": {"image_processor_type": "BlipImageProcessor"},
    "siglip": {"image_processor_type": "SiglipImageProcessor"},
    "vit": {"image_processor_type": "ViTImageProcessor"},
    "dinov2": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 256},
        "crop_size": {"height": 224, "width": 224},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    },
    "resnet": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}},
    "a number for the size": {"image_processor_type": "CLIPImageProcessor", "size": 56, "crop_size": 48},
    "a size that is no square": {
        "image_processor_type": "BlipImageProcessor",
        "size": {"height": 32, "width": 64},
    },
    "a crop wider than the picture": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 16},
        "crop_size": {"height": 40, "width": 50},
    },
    "no resize": {"image_processor_type": "CLIPImageProcessor", "do_resize": False},
    "no rescale": {"image_processor_type": "BlipImageProcessor", "do_rescale": False},
    "no normalisation": {"image_processor_type": "BlipImageProcessor", "do_normalize": False},
    "neither": {"image_processor_type": "BlipImageProcessor", "do_rescale": False, "do_normalize": False},
    "no filter named": {"image_processor_type": "BlipImageProcessor", "size": {"height": 30, "width": 40}},
    "nearest": {
        "image_processor_type": "BlipImageProcessor",
        "size": {"height": 30, "width": 40},
        "resample": 0,
    },
}
OTHER = {
    "siglip 2": {"image_processor_type": "Siglip2ImageProcessor"},
    "qwen-vl": {"image_processor_type": "Qwen2VLImageProcessor"},
    "idefics3": {"image_processor_type": "Idefics3ImageProcessor", "size": {"longest_edge": 728}},
    "smolvlm": {"image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": 512}},
    "gemma 3": {"image_processor_type": "Gemma3ImageProcessor"},
    "internvl": {"image_processor_type": "GotOcr2ImageProcessor"},
    "llava-onevision": {"image_processor_type": "LlavaOnevisionImageProcessor"},
}


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def saved(folder: Path, values: dict[str, Any], name: str = "preprocessor_config.json") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(values))
    return str(folder)


def loaded(folder: Path, **values: Any) -> ProcessorTransform:
    found = load_transform(saved(folder, values))
    assert found is not None
    return found


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
@pytest.mark.parametrize("values", WHOLE.values(), ids=WHOLE)
def test_pixels_of_one_picture_are_the_processors(values, shape, tmp_path):
    path, image = saved(tmp_path, values), picture(*shape)
    expected = AutoImageProcessor.from_pretrained(path)(images=image, return_tensors="pt")["pixel_values"][0]
    transform = load_transform(path)
    assert transform is not None
    torch.testing.assert_close(torch.from_numpy(transform(image)), expected.float(), rtol=0, atol=0)
    assert torch.equal(transform.inputs([image])["pixel_values"][0], expected)


@pytest.mark.parametrize("values", [*WHOLE.values(), *OTHER.values()], ids=[*WHOLE, *OTHER])
def test_inputs_are_all_that_the_processor_makes(values, tmp_path):
    path, images = saved(tmp_path, values), [picture(64, 48, seed=k) for k in range(3)]
    expected = AutoImageProcessor.from_pretrained(path)(images=images, return_tensors="pt")
    transform = load_transform(path)
    assert transform is not None
    made = transform.inputs(images)
    assert made.keys() == {name for name, value in expected.items() if isinstance(value, torch.Tensor)}
    assert all(torch.equal(made[name], expected[name]) for name in made)


def test_a_processor_of_patches_gives_no_whole_picture(tmp_path):
    transform = loaded(tmp_path, image_processor_type="Qwen2VLImageProcessor")
    with pytest.raises(ImageProcessorError, match="one picture of 3 channels, but Qwen2VLImageProcessor"):
        transform(picture(64, 48))


def test_the_file_that_transformers_5_writes_is_read(tmp_path):
    values = {
        "image_processor": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 40}}
    }
    path = saved(tmp_path, {**values, "processor_class": "CLIPProcessor"}, "processor_config.json")
    transform = load_transform(path)
    assert transform is not None
    assert transform.processor.size["shortest_edge"] == 40


def test_a_model_of_the_library_names_its_processor(tmp_path):
    CLIPConfig().save_pretrained(tmp_path)
    transform = loaded(tmp_path, size={"shortest_edge": 24}, crop_size=24)
    assert type(transform.processor).__name__.startswith("CLIPImageProcessor")
    assert transform(picture(40, 30)).shape == (3, 24, 24)


def test_a_model_of_ours_without_a_named_processor_states_all_steps(tmp_path):
    DualEncoderConfig().save_pretrained(tmp_path)
    values = {"do_resize": True, "size": {"height": 80, "width": 60}, "resample": 2, "do_normalize": False}
    made = loaded(tmp_path, **values)(picture(33, 20))
    expected = np.asarray(picture(33, 20).resize((60, 80), Image.Resampling.BILINEAR)) / 255
    np.testing.assert_allclose(made, expected.transpose(2, 0, 1), atol=1e-6)


def test_a_hub_id_is_read_at_its_revision(tmp_path, monkeypatch):
    commit = "1" * 40
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--someone--tower"
    saved(
        cached / "snapshots" / commit,
        {"image_processor_type": "CLIPImageProcessor", "size": 40, "crop_size": 40},
    )
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for revision in (None, commit):
        transform = load_transform("someone/tower", revision)
        assert transform is not None
        assert transform(picture(50, 60)).shape == (3, 40, 40)


def test_a_model_without_processor_has_none(tmp_path):
    assert load_transform(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_processor_type": "BlipImageProcessor", "size": {"longest_edge": 224}}, "Size must contain"),
        ({"image_processor_type": "BlipImageProcessor", "size": {"long": 224}}, "must load with"),
        ({"image_processor_type": "NoImageProcessor"}, "Fix preprocessor_config.json"),
        ({"size": 224}, "must load with `AutoImageProcessor`"),
        (
            {"image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "own.Own"}},
            "code of its own, which weft never runs",
        ),
    ],
    ids=["longest edge", "unknown side", "unknown class", "no class", "own code"],
)
def test_what_cannot_be_loaded_or_used_is_said_at_once(values, message, tmp_path):
    with pytest.raises(ImageProcessorError, match=message):
        load_transform(saved(tmp_path, values))


@pytest.mark.skipif(is_torchvision_available(), reason="torchvision is here")
def test_a_processor_that_needs_torchvision_is_said_to(tmp_path):
    with pytest.raises(
        ImageProcessorError, match="It needs torchvision, which is not installed here: pip install"
    ):
        load_transform(saved(tmp_path, {"image_processor_type": "Sam2ImageProcessor"}))


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ImageProcessorError, match=r"preprocessor_config\.json"):
        load_transform(str(tmp_path))


def test_pictures_that_keep_unequal_sizes_are_refused(tmp_path):
    pixels = Pixels(loaded(tmp_path, image_processor_type="BlipImageProcessor", do_resize=False))
    references = []
    for k, size in enumerate([(30, 20), (20, 30)]):
        picture(*size).save(tmp_path / f"{k}.png")
        references.append(MediaRef.from_bytes((tmp_path / f"{k}.png").read_bytes(), f"{k}.png"))
    with pytest.raises(ImageProcessorError, match="some have 30 x 20, 20 x 30 pixels"):
        pixels.pixels(references)


def test_a_narrow_picture_does_not_grow_without_bound(tmp_path, monkeypatch):
    transform = loaded(tmp_path / "clip", image_processor_type="CLIPImageProcessor")
    narrow = Image.new("RGB", (10_000, 1))
    with pytest.raises(
        CorruptMediaError, match=r"2240000 x 224. Leave it out, or set WEFT_MAX_RESIZED_PIXELS"
    ):
        transform(narrow)
    assert loaded(tmp_path / "blip", image_processor_type="BlipImageProcessor")(narrow).shape == (3, 384, 384)
    monkeypatch.setenv("WEFT_MAX_RESIZED_PIXELS", "100")
    with pytest.raises(CorruptMediaError, match="at most 100 pixels"):
        transform(Image.new("RGB", (50, 40)))


def test_readers_refuse_what_their_processor_would_make_huge(tmp_path):
    image_processor = loaded(tmp_path, image_processor_type="CLIPImageProcessor").processor
    with pytest.raises(CorruptMediaError, match="WEFT_MAX_RESIZED_PIXELS"):
        processed(SimpleNamespace(image_processor=image_processor), [[Image.new("RGB", (10_000, 1))]], ["a"])


def test_features_are_those_of_upright_pictures(tmp_path):
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    picture(64, 32).save(stream, "PNG", exif=exif)
    pixels = Pixels(
        loaded(tmp_path, image_processor_type="BlipImageProcessor", size={"height": 64, "width": 32})
    )
    read = pixels.pixels([MediaRef.from_bytes(stream.getvalue(), "held.png")])
    expected = pixels.transform(picture(64, 32).transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(read[0].numpy(), expected)


def test_readers_scale_deep_pictures():
    row = ask("what?", [Image.fromarray(np.full((2, 2), 200 * 257, np.uint16))])
    assert decoded(row)[0].getpixel((0, 0)) == (200, 200, 200)


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ({"size": {"height": 32, "width": 64}, "do_center_crop": False}, (32, 64)),
        ({"size": {"shortest_edge": 48}}, (48, 48)),
        ({"do_resize": False, "crop_size": {"height": 20, "width": 30}}, (20, 30)),
        ({"do_resize": False, "do_center_crop": False}, (50, 50)),
    ],
    ids=["no square", "short side", "crop alone", "as it is"],
)
def test_a_random_crop_has_the_size_that_the_processor_makes(values, size, tmp_path):
    transform = loaded(tmp_path, image_processor_type="CLIPImageProcessor", **values)
    assert transform.view_size(picture(70, 50)) == size
    changed = AugmentedPixels(Pixels(transform)).one(picture(70, 50), random.Random(0), "a cat")
    assert changed.size == size[::-1]


def test_the_fingerprint_is_of_the_settings_and_not_of_the_file(tmp_path):
    one = loaded(tmp_path / "1", image_processor_type="CLIPImageProcessor", processor_class="CLIPProcessor")
    two = loaded(tmp_path / "2", image_processor_type="CLIPImageProcessor")
    other = loaded(tmp_path / "3", image_processor_type="CLIPImageProcessor", resample=2)
    assert one.fingerprint() == two.fingerprint() != other.fingerprint()
    assert other.resample == "bilinear"


def test_a_square_is_resized_and_normalised_and_survives_a_worker(tmp_path):
    transform = square_transform(24, (0.5,) * 3, (0.25,) * 3, "bilinear")
    image = picture(40, 30)
    near = ImageTransform(24, "square", None, (0.5,) * 3, (0.25,) * 3, "bilinear")(image)
    np.testing.assert_allclose(transform(image), near, atol=1e-5)
    assert np.array_equal(pickle.loads(pickle.dumps(transform))(image), transform(image))
