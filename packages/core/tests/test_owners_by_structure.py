"""Models read by their structure: a mixed batch with unequal numbers of images is its rows alone, for each rule."""

import inspect

import pytest
import torch

from weft.core import attach
from weft.core.backbone.family import families
from weft.core.backbone.owners import media_by_grid
from weft.core.backbone.resolving import resolve
from weft.core.errors import RoutingError
from weft.core.testing.unit_contract import move_slots
from weft.core.testing.whole_mapping import mapped_types, tiny_model

DECLARED = [name for name in mapped_types() if name in families() and families()[name].by_structure]
QUICK = ("glm4v", "internvl")
TASKS = ["a", "b", "c"]
METHOD = {
    "method": "bottleneck",
    "bottleneck_size": 4,
    "init": "zero",
    "sharing": "multiple",
    "towers": ["text", "vision"],
}


def types():
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in DECLARED]


def images(model):
    """Three images, as a model takes them."""
    if families()[model.config.model_type].owners is not media_by_grid:
        return {"pixel_values": torch.randn(3, 3, 32, 32)}
    vision = model.config.vision_config
    grid = torch.tensor([[1, 4, 4], [1, 4, 8], [1, 8, 4]])
    features = 3 * vision.patch_size**2 * vision.temporal_patch_size
    return {"pixel_values": torch.randn(int(grid.prod(dim=1).sum()), features), "image_grid_thw": grid}


def of_images(media, first, last):
    """Some of the images."""
    if first == last:
        return {}
    if "image_grid_thw" not in media:
        return {"pixel_values": media["pixel_values"][first:last]}
    ends = [0, *media["image_grid_thw"].prod(dim=1).cumsum(0).tolist()]
    return {
        "pixel_values": media["pixel_values"][ends[first] : ends[last]],
        "image_grid_thw": media["image_grid_thw"][first:last],
    }


def tokens_of(model, media):
    """How many tokens each image becomes."""
    with torch.no_grad():
        found = model.model.get_image_features(**media)
    found = getattr(found, "pooler_output", found)
    return [len(each) for each in found] if len(found) == 3 else [len(found) // 3] * 3


def batch_of(model):
    """Two images, none, one; a word between the two."""
    torch.manual_seed(1)
    media = images(model)
    token = getattr(model.config, "image_token_id", None) or model.config.image_token_index
    first, second, third = tokens_of(model, media)
    ids = torch.randint(5, 150, (3, first + second + 4))
    ids[0, :first] = ids[0, first + 1 : first + 1 + second] = ids[2, :third] = token
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "mm_token_type_ids" in inspect.signature(model.forward).parameters:
        batch["mm_token_type_ids"] = (ids == token).long()
    return batch, media


@pytest.mark.parametrize("name", types())
def test_a_mixed_batch_is_its_rows_alone_with_unequal_numbers_of_images(name):
    model = tiny_model(name)
    text, media = batch_of(model)
    with torch.no_grad():
        expected = model(**text, **media).logits
    attach(model, METHOD, TASKS)
    with model.route(task="b"), torch.no_grad():
        assert torch.equal(model(**text, **media).logits, expected)
    torch.manual_seed(2)
    move_slots(model, 0.3)
    with model.route(tasks=TASKS):
        mixed = model(**text, **media).logits
    mixed.square().sum().backward()
    # The row of task b has no image, and so no gradient reaches its slots of the vision tower.
    idle = {key.split(".")[1] + slot for key, slot, value in model.weft.slots() if not value.grad.any()}
    assert idle == {"visionb"}
    for row, (task, shown) in enumerate(zip(TASKS, [(0, 2), (2, 2), (2, 3)], strict=True)):
        alone = {key: value[row : row + 1] for key, value in text.items()} | of_images(media, *shown)
        with model.route(task=task), torch.no_grad():
            found = model(**alone).logits[0]
        torch.testing.assert_close(
            mixed[row], found, atol=1e-5 * float(mixed.detach().abs().max()), rtol=1e-5
        )


def test_where_nothing_is_declared_owners_must_be_said():
    name = "mistral3"
    if name not in mapped_types():
        pytest.skip("this release of transformers has no Mistral 3")
    model = tiny_model(name)
    assert name in resolve(model).read_by_structure
    attach(model, METHOD, TASKS)
    media = {"pixel_values": torch.randn(3, 3, 32, 32), "image_sizes": torch.tensor([[32, 32]] * 3)}
    message = "`owners` must be given for the 1 rows of vision.0.attention"
    with model.route(tasks=TASKS), torch.no_grad(), pytest.raises(RoutingError, match=message):
        model.model.get_image_features(**media)
    with model.route(task="a"), torch.no_grad():
        model.model.get_image_features(**media)
