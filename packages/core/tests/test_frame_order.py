"""What sees the order of a video's frames: not BLIP with UniAdapter, which takes them for a bag, but temporal units."""

import pytest
import torch

from weft.core import attach
from weft.core.composites import BlipAnswering, BlipAnsweringConfig, BlipRetrieval, BlipRetrievalConfig
from weft.core.testing.unit_contract import move_slots
from weft.core.testing.vision_language import CASES
from weft.core.units.frame_attention import frame_weights

FRAMES = 3
ADAPTERS = {"method": "uniadapter", "bottleneck_size": 4}
AWARE = {"method": "frame_attention"}
TEMPORAL = {
    "ST-Adapter": {
        "method": "st_adapter",
        "frames": FRAMES,
        "bottleneck_size": 4,
        "blocks": ["attention", "ffn"],
    },
    "AIM": {"method": "aim", "frames": FRAMES, "bottleneck_size": 4},
}


def moved(model, methods):
    """A model with units whose slots are all moved away from their start."""
    attach(model.eval(), methods)
    torch.manual_seed(1)
    move_slots(model, 0.5)
    return model


def videos(size):
    torch.manual_seed(2)
    return (
        torch.randn(2, FRAMES, 3, size, size),
        torch.randint(5, 90, (2, 7)),
        torch.ones(2, 7, dtype=torch.long),
    )


def config_of(kind):
    config = CASES["blip_retrieval"]()[0].config
    return kind(
        text_config=config.text_config.to_dict(),
        vision_config=config.vision_config.to_dict(),
        image_text_hidden_size=8,
        encode_token_id=95,
    )


@torch.no_grad()
def retrieved(model, pixels, ids, mask, *, aware):
    """Features and matching logits of a video and a text."""
    video, text = model.encode_video(pixels), model.encode_text(ids, mask)
    weights = frame_weights(text, video.frames) if aware else None
    return torch.cat([video.feature, model.match(ids, mask, video.tokens, weights)], dim=1)


@pytest.mark.parametrize("aware", [False, True], ids=["plain", "frame-aware"])
@pytest.mark.parametrize("temporal", [None, *TEMPORAL])
def test_retrieval_sees_the_order_of_frames_with_temporal_units_alone(temporal, aware):
    torch.manual_seed(0)
    model = BlipRetrieval(config_of(BlipRetrievalConfig))
    model = moved(model, [ADAPTERS, AWARE, *([TEMPORAL[temporal]] if temporal else [])])
    pixels, ids, mask = videos(model.config.vision_config.image_size)
    found = retrieved(model, pixels, ids, mask, aware=aware)
    apart = (retrieved(model, pixels.flip(1), ids, mask, aware=aware) - found).abs().max()
    assert apart > 1e-4 if temporal else apart < 1e-5
    assert (retrieved(model, pixels.roll(1, 0), ids, mask, aware=aware) - found).abs().max() > 1e-4


@pytest.mark.parametrize("temporal", [None, *TEMPORAL])
@torch.no_grad()
def test_answering_sees_the_order_of_frames_with_temporal_units_alone(temporal):
    torch.manual_seed(0)
    model = BlipAnswering(config_of(BlipAnsweringConfig))
    model = moved(model, [ADAPTERS, *([TEMPORAL[temporal]] if temporal else [])])
    pixels, ids, mask = videos(model.config.vision_config.image_size)
    states = model.encode_question(ids, mask, pixels)
    apart = (model.encode_question(ids, mask, pixels.flip(1)) - states).abs().max()
    assert apart > 1e-4 if temporal else apart < 1e-5
