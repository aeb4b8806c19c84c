import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import BatchEncoding

from weft.data import Caption, MediaRef, Retrieval
from weft.data.media.shift import RandomShift
from weft.data.media.transforms import ImageTransform
from weft.data.testing import image_bytes
from weft.eval.errors import ScoreInputError
from weft.eval.evaluate.augmented import ShiftedPixels
from weft.eval.evaluate.inputs import TextRules
from weft.eval.evaluate.predict import predict, unfit
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.evaluate.scoring import score
from weft.eval.evaluate.visual import Pixels
from weft.eval.metrics import retrieval_recall
from weft.eval.metrics.matches import Matches
from weft.eval.testing.own_subjects import own_subject, paired_batches

TRANSFORM = ImageTransform(
    size=6, shape="square", crop=None, mean=(0.0,) * 3, std=(1.0,) * 3, resample="nearest"
)
COLORS = {
    "red": (255, 0, 0, 255),
    "green": (0, 255, 0, 255),
    "blue": (0, 0, 255, 255),
    "dark red": (120, 0, 0, 255),
}


def record(name: str, text: str | None = None, media: str | None = None) -> Retrieval:
    media = media or name
    return Retrieval(
        id=f"{name}/{text or name}",
        media=MediaRef.from_bytes(image_bytes(COLORS[media]), path=f"{media}.png"),
        media_id=media,
        text=text or name,
        text_id=f"text {text or name}",
        extra={"tones": ["dark"] if name.startswith("dark") else []},
    )


RECORDS = [record(name) for name in COLORS]


class Letters:
    """Writes a text as the numbers of its letters."""

    def __call__(self, texts: list[str], **settings: Any) -> Any:
        rows = [[ord(letter) - 96 if letter != " " else 30 for letter in text] for text in texts]
        length = max(map(len, rows))
        ids = [row + [0] * (length - len(row)) for row in rows]
        return BatchEncoding({"input_ids": ids, "attention_mask": [[int(i > 0) for i in row] for row in ids]})


class ByColor(nn.Module):
    """Knows the colours' names by heart; `dark` is not told apart."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []
        self.weight = nn.Parameter(torch.ones(1))

    def encode_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(input_ids))
        names = ["".join(" " if c == 30 else chr(c + 96) for c in row if c) for row in input_ids.tolist()]
        return functional.one_hot(
            torch.tensor([["red", "green", "blue"].index(n.split()[-1]) for n in names]), 3
        ).float()

    def encode_image(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return functional.normalize(pixel_values[:, 0].mean((2, 3)), dim=-1)


def batches(visual: Any = None) -> ReaderBatches:
    config = own_subject("weft_dual_encoder").model.config
    rules = {"colors": TextRules(), "en": TextRules()}
    return paired_batches(config, Letters(), visual or Pixels(TRANSFORM), rules)


def test_every_distinct_text_and_image_is_encoded_once():
    model, seen = ByColor(), []
    records = [*RECORDS, record("red", "a red"), record("green", "red", media="green")]
    matches = predict(model, "colors", records, batches(), batch_size=2, progress=seen.append)
    assert isinstance(matches, Matches)
    assert matches.text_ids == ("text red", "text green", "text blue", "text dark red", "text a red")
    assert matches.image_ids == tuple(COLORS)
    assert model.calls == [2, 2, 1]
    assert seen[-1] == len(records)


def test_scores_are_those_of_the_similarity_matrix_and_split_by_skin_tone():
    matches = predict(ByColor(), "colors", RECORDS, batches())
    report = score("retrieval", matches, RECORDS, headline="t2i_R@1")
    whole = retrieval_recall(matches.image_features @ matches.text_features.T, [[0], [1], [2], [3]])
    assert report.scores == whole.scores
    # Red and dark red tie on both sides, and ties count against the model.
    assert report.percent == 50.0
    tones = report.groups["skin_tone: t2i_R@1"]
    assert (tones["plain"].score, tones["plain"].n) == (pytest.approx(200 / 3), 3)
    assert (tones["variant"].score, tones["variant"].n) == (0.0, 1)
    assert set(report.groups) == {"skin_tone: t2i_R@1", "skin_tone: i2t_R@1"}


def test_ranked_matches_are_plain_data():
    matches = predict(ByColor(), "colors", RECORDS, batches())
    ranked = json.loads(json.dumps(matches.ranked(best=2)))
    assert ranked["text_to_image"]["text green"][0] == "green"
    assert ranked["image_to_text"]["blue"][0] == "text blue"
    assert all(len(found) == 2 for found in ranked["text_to_image"].values())


def test_the_best_of_one_direction_are_kept_without_the_order_of_all_others():
    texts, images = (
        np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32) for count in (600, 500)
    )
    names = tuple(map(str, range(600)))
    tracemalloc.start()
    Matches(names, names[:500], texts, images).ranked(best=2)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The similarity, one of opposite sign, and one order, whose numbers are twice as wide.
    assert most < 4.8 * 600 * 500 * 4


def test_features_of_another_split_are_refused():
    matches = predict(ByColor(), "colors", RECORDS, batches())
    with pytest.raises(ScoreInputError, match="`matches` must hold the texts and images of the 3 records"):
        score("retrieval", matches, RECORDS[:3])


def test_a_model_that_cannot_do_the_task_is_told_beforehand():
    reader = batches().reader
    assert unfit(reader, RECORDS) is None
    caption = Caption(id="1", media=RECORDS[0].media, media_id="red", captions=("red",))
    assert "need a model that can write an answer, but a model of type weft_dual_encoder, read as" in str(
        unfit(reader, [caption])
    )


def test_equal_texts_and_images_of_a_batch_are_known_as_such():
    rows = [record("red"), record("green"), record("green", "red", media="green"), record("red", "a red")]
    batch = batches().training([("colors", each) for each in rows])["batch"]
    assert batch.objective == "contrastive"
    texts, images = batch.identities["text"], batch.identities["image"]
    first, second, third, fourth = texts.tolist()
    assert first == third
    assert len({first, second, fourth}) == 3
    assert min(texts.min(), images.min()) >= 0
    later = batches().training([("colors", each) for each in rows[2:]])["batch"]
    assert torch.equal(later.identities["image"], images[2:])
    assert images[0] != images[1]
    assert images.unique().numel() == len({each.media.uri for each in rows})
    assert batch.labels is None


def test_a_shift_changes_training_alone_and_is_a_function_of_row_and_epoch():
    noise = np.random.default_rng(0).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    pixels = Pixels(TRANSFORM)
    kept = TRANSFORM(RECORDS[0].media.image()) * 0 + noise.transpose(2, 0, 1) / np.float32(255)
    pixels._kept[RECORDS[0].media.place] = kept
    made = batches(ShiftedPixels(pixels, RandomShift(2)))

    def drawn(epoch):
        rows = [("colors", RECORDS[0]), ("colors", RECORDS[1])]
        return made.training(rows, epoch)["batch"].inputs["pixel_values"][0]

    epochs = [drawn(epoch) for epoch in range(4)]
    assert torch.equal(epochs[1], drawn(1))
    assert any(not torch.equal(epochs[0], other) for other in epochs[1:])
    asked = made.reader.asking([made.row("colors", RECORDS[0])]).inputs["pixel_values"]
    assert np.array_equal(asked[0, 0].numpy(), kept)


def test_kept_pixels_are_decoded_once_and_within_the_limit():
    reads = []

    class Counted(ImageTransform):
        def __call__(self, image: Any) -> Any:
            reads.append(1)
            return super().__call__(image)

    transform = Counted(
        size=6, shape="square", crop=None, mean=(0.0,) * 3, std=(1.0,) * 3, resample="nearest"
    )
    size = 3 * 6 * 6 * 4 / 2**20
    pixels = Pixels(transform, keep_mib=2.5 * size)
    media = [each.media for each in RECORDS]
    first = pixels.pixels(media)
    assert torch.equal(first, pixels.pixels(media))
    distinct = len({ref.place for ref in media})
    assert len(reads) == distinct + max(0, distinct - 2)


def test_captions_that_are_a_reference_word_for_word_are_counted():
    names = {"a": ("a red cat", "red cat"), "b": ("a dog",), "c": ("a bird",)}
    records = [
        Caption(
            id=key,
            media=RECORDS[0].media,
            media_id=key,
            captions=captions,
            extra={"tones": ["dark"] if key == "a" else []},
        )
        for key, captions in names.items()
    ]
    report = score("caption", {"a": "Red  cat", "b": "a dog", "c": "a cat"}, records, headline="exact")
    assert report.percent == pytest.approx(200 / 3)
    exact = report.groups["skin_tone: exact"]
    assert (exact["variant"].score, exact["plain"].score) == (1.0, 0.5)
