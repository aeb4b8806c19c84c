"""The recipes of methods that UniAdapter is compared with, as `weft plan RECIPE --json` counts them."""

import json

import pytest

from weft.train.cli.app import main
from weft.train.recipe.loading import load_recipe

HEADS = 395_266
IMAGES = {
    "adaptformer": 1_189_632,
    "convpass": 327_552,
    "vpt_shallow": 38_400,
    "vpt_deep": 460_800,
    "lst": 2_376_492,
    "lora": 3_538_944,
    "linear_probe": 0,
}
VIDEOS = {"st_adapter": 7_110_144, "st_adapter_twice": 14_220_288, "aim": 10_651_392 + 8 * 768}


def planned(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        main(["plan", *arguments, "--json"])
    assert left.value.code == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("name", "expected"), [*IMAGES.items(), *VIDEOS.items()], ids=[*IMAGES, *VIDEOS])
def test_a_sibling_trains_its_published_count_and_the_same_heads(capsys, name, expected):
    found = planned(capsys, f"uniadapter/siblings/{name}")
    assert found["trainable_parameters"] == expected + HEADS
    assert found["components"].get("projector", 0) + found["components"].get("head", 0) == HEADS


@pytest.mark.parametrize(
    ("name", "base"), [*((n, "flickr30k") for n in IMAGES), *((n, "msrvtt") for n in VIDEOS)]
)
def test_nothing_but_the_method_differs(name, base):
    sibling = load_recipe(f"uniadapter/siblings/{name}").model_dump()
    other = load_recipe(f"uniadapter/{base}").model_dump()
    changed = {"name", "label", "method"} | ({"paper_settings"} if base == "flickr30k" else set())
    assert {key for key in sibling if sibling[key] != other[key]} == changed
    assert sibling["paper_settings"] is None


@pytest.mark.parametrize(
    ("size", "adapters", "percent", "of_vqa"), [(128, 4_784_640, 2.14, 1.32), (512, 18_945_024, 8.47, 5.24)]
)
def test_counts_and_shares_of_uniadapter(capsys, size, adapters, percent, of_vqa):
    options = [f"method.bottleneck_size={size}", "method.cross_norm=trained"]
    found = planned(capsys, "uniadapter/coco", *options)
    assert found["components"]["uniadapter"] == adapters
    assert found["trainable_parameters"] == adapters + HEADS
    # The shares that are published are of the backbone alone.
    backbone = found["total_parameters"] - adapters
    assert round(100 * adapters / backbone, 2) == percent
    answering = planned(capsys, "uniadapter/vqav2", *options, "backbone.config.vision_config.image_size=384")
    assert round(100 * adapters / (answering["total_parameters"] - adapters), 2) == of_vqa


@pytest.mark.parametrize(
    ("sharing", "expected"),
    [
        ("unified", 4_747_776),
        ("{down: [task, stack], up: [task, stack]}", 7_110_144),
        ("{down: [task, stack], up: [task, stack, modality]}", 4_732_416),
        ("{down: [task, stack, modality], up: [task, stack, modality]}", 2_370_048),
    ],
    ids=["down", "none", "up", "all"],
)
def test_counts_of_the_sharing_schemes_on_the_command_line(capsys, sharing, expected):
    method = f"method={{method: uniadapter, bottleneck_size: 128, norm: false, sharing: {sharing}}}"
    assert planned(capsys, "uniadapter/coco", method)["components"] == {"uniadapter": expected}
