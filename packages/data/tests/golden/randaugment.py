"""Writes `randaugment.png`: what torchvision's operations make of one picture; `test_augment.py` compares.

    pip install torchvision==0.28.0 && python packages/data/tests/golden/randaugment.py

torchvision's CUDA build does not import beside the CPU build of torch, for want of operators that images do not
need; declaring them first lets it.
"""

from math import atan, degrees
from pathlib import Path

import numpy as np
import torch
from PIL import Image

WIDTH, HEIGHT = 40, 20
STRENGTH = 0.5
GREY = [128, 128, 128]
ABSENT = [
    *("nms", "qnms", "roi_align", "_roi_align_backward", "roi_pool", "_roi_pool_backward"),
    *("ps_roi_align", "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward"),
    *("deform_conv2d", "_deform_conv2d_backward"),
]


def picture() -> Image.Image:
    """The picture that is changed: a smooth random one."""
    small = np.random.default_rng(0).integers(40, 216, (4, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def main() -> None:
    """Write the sheet, one operation beside another, in the order of weft's."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ABSENT:
        library.define(f"{name}(Tensor boxes) -> Tensor")
    from torchvision.transforms import functional as F  # noqa: N812 - its customary name
    from torchvision.transforms.functional import InterpolationMode

    bilinear = {"interpolation": InterpolationMode.BILINEAR, "fill": GREY}

    def sheared(x: float, y: float) -> Image.Image:
        shear = [degrees(atan(x)), degrees(atan(y))]
        return F.affine(image, 0.0, [0, 0], 1.0, shear, center=[0, 0], **bilinear)

    def moved(x: float, y: float) -> Image.Image:
        return F.affine(image, 0.0, [round(x), round(y)], 1.0, [0.0, 0.0], **bilinear)

    image = picture()
    # Both signs are drawn equally often; torchvision counts shifts the other way round.
    made = {
        "identity": image,
        "auto_contrast": F.autocontrast(image),
        "equalize": F.equalize(image),
        "brightness": F.adjust_brightness(image, 1 + 0.9 * STRENGTH),
        "sharpness": F.adjust_sharpness(image, 1 + 0.9 * STRENGTH),
        "rotate": F.rotate(image, 30 * STRENGTH, **bilinear),
        "shear_x": sheared(0.3 * STRENGTH, 0),
        "shear_y": sheared(0, 0.3 * STRENGTH),
        "translate_x": moved(-0.3 * STRENGTH * WIDTH, 0),
        "translate_y": moved(0, -0.3 * STRENGTH * HEIGHT),
    }
    sheet = np.concatenate([np.asarray(tile) for tile in made.values()], axis=1)
    Image.fromarray(sheet).save(Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()
