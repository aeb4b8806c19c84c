"""Owners of media: each picture, tile and packed token takes the weights of its row's task, whatever the numbers."""

from typing import Any

import pytest
import torch

from weft.core import attach
from weft.core.backbone.owners import EqualMedia, SizedMedia, media_of
from weft.core.errors import RoutingError
from weft.core.testing.sibling_types import SIBLINGS
from weft.core.testing.unit_contract import checkpoint_activations, gradients, move_slots
from weft.core.testing.vision_language import CASES, IMAGE, VIDEO

METHOD = {"method": "lora", "rank": 2, "sharing": "multiple", "towers": ["text", "vision"]}
OUTSIDE = {**METHOD, "components": ["projector", "lm_head"]}
TASKS = ["a", "b", "c"]


def rows_of_tokens(*counts: int, token: int = IMAGE) -> dict[str, torch.Tensor]:
    """A batch in which row `i` begins with `counts[i]` placeholders."""
    ids = torch.randint(5, 90, (len(counts), max(counts) + 3))
    for row, count in enumerate(counts):
        ids[row, :count] = token
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def pictures(*shape: int) -> torch.Tensor:
    return torch.randn(*shape)


def llava() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Two pictures, none, one."""
    batch = {**rows_of_tokens(8, 0, 4), "pixel_values": pictures(3, 3, 16, 16)}
    return batch, [{"pixel_values": slice(0, 2)}, {}, {"pixel_values": slice(2, 3)}]


def paligemma() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One picture, two, one."""
    batch = {**rows_of_tokens(4, 8, 4), "pixel_values": pictures(4, 3, 16, 16)}
    batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
    return batch, [
        {"pixel_values": slice(0, 1)},
        {"pixel_values": slice(1, 3)},
        {"pixel_values": slice(3, 4)},
    ]


def smolvlm() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Three tiles, one, two; what is missing is padding, which never reaches the tower."""
    pixels = pictures(3, 3, 3, 32, 32)
    pixels[1, 1:] = 0
    pixels[2, 2:] = 0
    batch = {**rows_of_tokens(12, 4, 8), "pixel_values": pixels}
    return batch, [{"pixel_values": slice(row, row + 1)} for row in range(3)]


def llava_onevision() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A wide picture, a square one, and two in one row, which are not cut into tiles."""
    batch = {
        **rows_of_tokens(4 + 2 * (4 + 1), 4 + 2 * (2 + 1), 2 * (4 + 1)),
        "pixel_values": pictures(4, 3, 3, 16, 16),
        "image_sizes": torch.tensor([[16, 32], [16, 16], [16, 16], [16, 32]]),
        "batch_num_images": torch.tensor([1, 1, 2]),
    }
    pixels = [slice(0, 1), slice(1, 2), slice(2, 4)]
    return batch, [
        {"pixel_values": pixels[row], "image_sizes": pixels[row], "batch_num_images": slice(row, row + 1)}
        for row in range(3)
    ]


def llava_next() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A wide picture, a square one, and one of each in one row, all cut into tiles."""
    wide, square = 4 + 2 * (4 + 1), 4 + 2 * (2 + 1)
    batch = {
        **rows_of_tokens(wide, square, square + wide),
        "pixel_values": pictures(4, 3, 3, 16, 16),
        "image_sizes": torch.tensor([[16, 32], [16, 16], [16, 16], [16, 32]]),
    }
    pixels = [slice(0, 1), slice(1, 2), slice(2, 4)]
    return batch, [{"pixel_values": where, "image_sizes": where} for where in pixels]


def qwen() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Pictures of 16 and 8 patches, none, one of 24."""
    grid = torch.tensor([[1, 4, 4], [1, 2, 4], [1, 4, 6]])
    batch = {**rows_of_tokens(7, 0, 6), "pixel_values": pictures(48, 96), "image_grid_thw": grid}
    batch["input_ids"][0, 4] = 7  # a word between the two
    batch["mm_token_type_ids"] = (batch["input_ids"] == IMAGE).long()
    return batch, [
        {"pixel_values": slice(0, 24), "image_grid_thw": slice(0, 2)},
        {},
        {"pixel_values": slice(24, 48), "image_grid_thw": slice(2, 3)},
    ]


BATCHES = {
    "llava": llava,
    "paligemma": paligemma,
    "smolvlm": smolvlm,
    "llava_onevision": llava_onevision,
    "llava_next": llava_next,
    "llava_next_video": llava_next,
    "qwen2_5_vl": qwen,
    "qwen3_vl": qwen,
    **{name: qwen for name in ("qwen3_vl_moe", "qwen3_5") if name in SIBLINGS},
}
MEDIA = ("pixel_values", "image_sizes", "image_grid_thw", "batch_num_images")


def alone(batch: dict[str, Any], row: int, media: dict[str, slice]) -> dict[str, Any]:
    """One row with its own pictures."""
    one = {name: value[row : row + 1] for name, value in batch.items() if name not in MEDIA}
    return one | {name: batch[name][where] for name, where in media.items()}


def adapted_model(name: str, method: dict[str, Any] = METHOD) -> Any:
    torch.manual_seed(0)
    model = {**CASES, **SIBLINGS}[name]()[0].eval()
    if name in ("llava_onevision", "llava_next", "llava_next_video"):
        model.config.image_grid_pinpoints = [[16, 16], [16, 32]]
    attach(model, method, TASKS)
    torch.manual_seed(1)
    move_slots(model, 0.3)
    return model


@pytest.mark.parametrize("method", [METHOD, OUTSIDE], ids=["layers", "connectors and heads too"])
@pytest.mark.parametrize("name", BATCHES)
def test_a_mixed_batch_is_its_rows_alone_with_unequal_numbers_of_media(name, method):
    model = adapted_model(name, method)
    batch, media = BATCHES[name]()
    single: dict[str, torch.Tensor] = {}
    for row, task in enumerate(TASKS):
        model.zero_grad()
        with model.route(task=task):
            logits = model(**alone(batch, row, media[row])).logits
            logits.square().sum().backward()
        single |= {key: value for key, value in gradients(model).items() if key.endswith(f".{task}")}
        for given in ({"tasks": TASKS}, {"task_ids": torch.arange(3)}):
            with torch.no_grad(), model.route(**given):
                mixed = model(**batch).logits[row : row + 1]
            torch.testing.assert_close(mixed, logits, atol=1e-6, rtol=1e-5)
    model.zero_grad()
    with model.route(tasks=TASKS):
        model(**batch).logits.square().sum().backward()
    found = gradients(model)
    for key, value in single.items():
        torch.testing.assert_close(found[key], value, atol=2e-5, rtol=1e-4)
    other = list(reversed(TASKS))
    with torch.no_grad(), model.route(tasks=other):
        assert not torch.allclose(model(**batch).logits[0], single_logits(model, batch, media[0]))


def single_logits(model: Any, batch: dict[str, Any], media: dict[str, slice]) -> torch.Tensor:
    with model.route(task="a"):
        return model(**alone(batch, 0, media)).logits[0]


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "smolvlm"])
def test_beams_keep_the_pictures_of_their_rows(name):
    model = adapted_model(name).eval()
    batch, media = BATCHES[name]()
    if name == "llava":  # rows with several pictures cannot be expanded by transformers
        batch = {**rows_of_tokens(4, 4, 4), "pixel_values": pictures(3, 3, 16, 16)}
        media = [{"pixel_values": slice(row, row + 1)} for row in range(3)]
    options = {"num_beams": 3, "max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    with model.route(tasks=TASKS):
        mixed = model.generate(**batch, **options)
    for row, task in enumerate(TASKS):
        with model.route(task=task):
            one = model.generate(**alone(batch, row, media[row]), **options)
        assert torch.equal(mixed[row], one[0])


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_videos_follow_their_grids(name):
    model = adapted_model(name)
    grid = torch.tensor([[2, 4, 4], [1, 2, 4]])
    batch = rows_of_tokens(8, 0, 2, token=VIDEO)
    if name == "qwen3_vl":  # it sees each frame between marks of its own
        batch = rows_of_tokens(4, 0, 2, token=VIDEO)
        grid = torch.tensor([[1, 4, 4], [1, 2, 4]])
    patches = grid.prod(dim=1)
    batch |= {"pixel_values_videos": pictures(int(patches.sum()), 96), "video_grid_thw": grid}
    batch["mm_token_type_ids"] = (batch["input_ids"] == VIDEO).long() * 2
    with torch.no_grad(), model.route(tasks=TASKS):
        mixed = model(**batch).logits
    for row, task in enumerate(TASKS):
        with torch.no_grad(), model.route(task=task):
            torch.testing.assert_close(mixed[row], model(**batch).logits[row], atol=1e-6, rtol=1e-5)


def test_recomputed_activations_keep_the_owners():
    model = adapted_model("llava").train()
    batch, _ = llava()
    found = []
    for recompute in (False, True):
        if recompute:
            checkpoint_activations(model)
        model.zero_grad()
        with model.route(tasks=TASKS):
            loss = model(**batch).logits.square().sum()
        loss.backward()
        found.append(gradients(model))
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value)


def test_what_does_not_follow_from_the_batch_is_refused():
    model = adapted_model("llava")
    batch, _ = llava()
    with model.route(tasks=TASKS):
        message = "`owners` must be given for the 3 rows of vision.0.attention"
        with pytest.raises(RoutingError, match=message):
            model.model.get_image_features(batch["pixel_values"])
        batch["input_ids"][1, 0] = IMAGE
        with pytest.raises(RoutingError, match="equally many for each of its 3 images"):
            model(**batch)
        batch["input_ids"][0, :3] = 7
        batch["input_ids"][1, 1:3] = IMAGE
        with pytest.raises(RoutingError, match="must be those of whole images"):
            model(**batch)


def test_owners_may_be_said_instead():
    model = adapted_model("llava").eval()
    batch, _ = llava()
    pixels = batch["pixel_values"]
    with torch.no_grad():
        with model.route(tasks=TASKS, owners={"vision": [0, 0, 2]}):
            said = model.model.get_image_features(pixels).pooler_output
        for row, task in enumerate(["a", "a", "c"]):
            with model.route(task=task):
                one = model.model.get_image_features(pixels[row : row + 1]).pooler_output
            torch.testing.assert_close(said[row], one[0], atol=1e-6, rtol=1e-5)
        with model.route(tasks={"text": TASKS, "vision": ["a", "a", "c"]}):
            by_modality = model(**batch).logits
        with model.route(tasks=TASKS):
            torch.testing.assert_close(model(**batch).logits, by_modality)


@pytest.mark.parametrize(
    ("owners", "message"),
    [
        ({"vision": [0, 3]}, "names rows from 0 to 3 of a batch of 3"),
        ({"vision": [-1, 0]}, "names rows from -1 to 0"),
        ({"vision": [0.5]}, "is torch.float32 of shape"),
        ({"vision": [[0]]}, r"is torch.int64 of shape \(1, 1\)"),
    ],
    ids=["too high", "negative", "a fraction", "nested"],
)
def test_owners_that_are_no_rows_are_refused(owners, message):
    model = adapted_model("llava")
    with pytest.raises(RoutingError, match=message), model.route(tasks=TASKS, owners=owners):
        pass


def test_owners_of_another_number_are_refused():
    model = adapted_model("llava")
    batch, _ = llava()
    message = "`owners` must name the row of the batch for each of the 3 rows of vision.0.attention"
    with model.route(tasks=TASKS, owners={"vision": [0, 2]}), pytest.raises(RoutingError, match=message):
        model(**batch)
    with (
        model.route(tasks={"vision": ["a", "b"]}),
        pytest.raises(RoutingError, match="each of the 3 images"),
    ):
        model(**batch)


def test_merged_patches_keep_their_owners():
    media = SizedMedia(torch.tensor([3, 0, 2]), torch.tensor([1, 2, 2]), torch.tensor([4, 8, 8]), 20)
    assert media.owner(20).tolist() == [0] * 12 + [2] * 8
    assert media.owner(5).tolist() == [0] * 3 + [2] * 2
    assert not media.fits(3)
    uneven = SizedMedia(torch.tensor([2]), torch.tensor([1, 1]), torch.tensor([6, 4]), 10)
    with pytest.raises(RoutingError, match="Each image must have a multiple of 5"):
        uneven.owner(2)


def test_pictures_and_videos_of_one_size_are_told_apart_by_their_rows_or_refused():
    pictures_of = EqualMedia(torch.tensor([4, 4]), 2)
    videos = EqualMedia(torch.tensor([0, 6]), 3)
    assert media_of([pictures_of, videos], 2, "vision.0.ffn") is pictures_of
    assert media_of([pictures_of, videos], 3, "vision.0.ffn") is videos
    with pytest.raises(RoutingError, match="images and videos are equally many there"):
        media_of([pictures_of, videos], 6, "vision.0.ffn")
    with pytest.raises(RoutingError, match="no image of the batch has such"):
        media_of([pictures_of], 5, "vision.0.ffn")


def test_frames_follow_their_videos():
    assert EqualMedia(torch.tensor([6, 0, 3]), 3).owner(12).tolist() == [0] * 8 + [2] * 4


def test_one_graph_serves_all_numbers_of_pictures_of_a_batch():
    model = adapted_model("llava").eval()
    model(**llava()[0], task_ids=torch.arange(3))  # transformers hooks its towers in the first call
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for counts in ((8, 0, 4), (4, 4, 4), (0, 0, 12)):
        batch = {**rows_of_tokens(8, 8, 12), "pixel_values": pictures(3, 3, 16, 16)}
        ids = torch.randint(5, 90, batch["input_ids"].shape)
        for row, count in enumerate(counts):
            ids[row, :count] = IMAGE
        batch["input_ids"] = ids
        with torch.no_grad(), model.route(task_ids=torch.arange(3)):
            torch.testing.assert_close(compiled(**batch).logits, model(**batch).logits)
