"""The transforms of weft.data give what the Pillow image processors of transformers give."""

import numpy as np
import pytest
from PIL import Image

from weft.data.media.transforms import ImageTransform

transformers = pytest.importorskip("transformers")

SIZES = [(300, 200), (199, 301), (64, 64), (30, 50), (224, 224), (225, 640)]
HALF = (0.5, 0.5, 0.5)


def picture(size):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def cases():
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    return {
        "clip": (CLIPImageProcessorPil(), ImageTransform()),
        "clip-crop-larger-than-resize": (
            CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 61, "width": 61}),
            ImageTransform(size=40, crop=61),
        ),
        "blip": (BlipImageProcessorPil(), ImageTransform(size=384, shape="square", crop=None)),
        "vit": (
            ViTImageProcessorPil(),
            ImageTransform(shape="square", crop=None, mean=HALF, std=HALF, resample="bilinear"),
        ),
    }


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", ["clip", "clip-crop-larger-than-resize", "blip", "vit"])
def test_arrays_agree_to_1e_5(name, size):
    processor, transform = cases()[name]
    image = picture(size)
    expected = processor(images=image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(transform(image), expected, atol=1e-5)
