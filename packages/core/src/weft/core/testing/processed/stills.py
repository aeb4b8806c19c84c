"""Processors of still images where torchvision is absent.

Some processors hold one for videos, which transformers writes with torchvision. Where that is not installed, a class
that knows its settings and reads no video takes the place: images, texts and tokens go through transformers' own code.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import transformers
from transformers import processing_utils
from transformers.models.smolvlm import processing_smolvlm
from transformers.utils import is_torchvision_available

_AUTO = "transformers.models.auto.video_processing_auto"


class StillsOnly(transformers.BaseImageProcessor):
    """Stands where a processor of videos belongs, keeps its settings and refuses videos."""

    video_processor_type = "StillsOnly"

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        for name, value in settings.items():
            setattr(self, name, value)

    def __call__(self, *videos: Any, **options: Any) -> Any:
        """Refuse.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(
            "`videos` need torchvision, which is not installed. Run `pip install torchvision`."
        )


class _Found:
    """Stands where transformers looks for the processor of videos of a folder."""

    @staticmethod
    def from_pretrained(*names: Any, **options: Any) -> StillsOnly:
        return StillsOnly(merge_size=2, temporal_patch_size=2, num_frames=4, fps=1)


@functools.cache
def real_videos() -> Any:
    """What transformers itself loads processors of videos with; it needs torchvision."""
    # By its name: without torchvision, its package has something else there.
    return importlib.import_module(_AUTO).AutoVideoProcessor


@functools.cache
def without_torchvision() -> None:
    """Let processors be built and loaded without torchvision, in this process; nothing where it is installed."""
    real_videos()
    if not is_torchvision_available():
        # The name by which releases of transformers know a processor of videos.
        named = processing_utils.MODALITY_TO_BASE_CLASS_MAPPING["video_processor"]
        setattr(processing_utils.transformers_module, named, StillsOnly)
        auto: Any = importlib.import_module(_AUTO)
        auto.AutoVideoProcessor = _Found
    if processing_smolvlm.num2words is None:  # it writes the number of frames of a video
        processing_smolvlm.num2words = str


def video_processor(name: str, **settings: Any) -> Any:
    """A processor of videos, of a class of transformers."""
    if is_torchvision_available():
        return getattr(transformers, name)(**settings)
    return StillsOnly(**settings)


def image_processor(name: str, **settings: Any) -> Any:
    """A processor of images, of a class of transformers: on torchvision where it is installed, else on Pillow.

    So transformers chooses.
    """
    return getattr(transformers, name if is_torchvision_available() else f"{name}Pil")(**settings)
