import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import ResNetConfig

from weft.core.composites import VisualSeq2Seq, VisualSeq2SeqConfig
from weft.core.testing.backbones import bart_config
from weft.core.testing.processed.words import word_tokenizer
from weft.data import load_dataset
from weft.data.media.transforms import ImageTransform
from weft.eval.errors import ScoreInputError
from weft.eval.evaluate.inputs import TextRules
from weft.eval.evaluate.rank import rank_answers
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.evaluate.visual import Pixels
from weft.eval.testing.own_subjects import paired_batches

ANSWERS = ["red", "green star", "two", "no", "green", "green star of blue", "yes"]


@pytest.fixture(scope="module")
def model() -> VisualSeq2Seq:
    torch.manual_seed(0)
    language = bart_config(vocab_size=30, encoder_layers=1, decoder_layers=1, init_std=0.5)
    vision = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8, 12], depths=[1, 1, 1], layer_type="basic")
    return VisualSeq2Seq(VisualSeq2SeqConfig(language, vision, feature_size=12, num_visual_tokens=9)).eval()


@pytest.fixture(scope="module")
def batches(model: VisualSeq2Seq) -> ReaderBatches:
    words = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        *["red", "green", "star", "two", "no", "of", "blue", "yes", "what", "color", "size", "how"],
    ]
    fast = word_tokenizer(words)
    transform = ImageTransform(size=48, shape="square", crop=None, mean=(0.5,) * 3, std=(0.5,) * 3)
    return paired_batches(model.config, fast, Pixels(transform), {"vqa": TextRules()})


def read(batches: ReaderBatches, record: Any) -> dict[str, torch.Tensor]:
    return batches.reader.asking([batches.row("vqa", record)]).inputs


@pytest.fixture(scope="module")
def records() -> Sequence[Any]:
    return load_dataset("scenes", split="test", task="vqa", size=9, num_scenes=60)


def losses(model: Any, batches: ReaderBatches, record: Any, answers: Sequence[str]) -> list[float]:
    """Summed loss of each answer alone, by the model's own labels: the definition."""
    inputs = read(batches, record)
    found = []
    for answer in answers:
        labels = torch.tensor([batches.reader.processor.tokenizer(answer).input_ids])
        with torch.no_grad():
            found.append(float(model(**inputs, labels=labels).loss) * labels.shape[1])
    return found


@pytest.mark.parametrize("batch_size", [2, 5, 64])
def test_the_answer_is_the_one_of_least_loss(model, batches, records, batch_size):
    got = rank_answers(model, "vqa", records, batches, ANSWERS, batch_size=batch_size)
    all_losses = {record.id: losses(model, batches, record, ANSWERS) for record in records}
    assert got == {key: ANSWERS[own.index(min(own))] for key, own in all_losses.items()}
    by_length = rank_answers(model, "vqa", records, batches, ANSWERS, per_token=True, batch_size=batch_size)
    sizes = [len(batches.reader.processor.tokenizer(answer).input_ids) for answer in ANSWERS]
    for key, own in all_losses.items():
        means = [loss / size for loss, size in zip(own, sizes, strict=True)]
        assert by_length[key] == ANSWERS[means.index(min(means))]


def test_only_answers_of_likely_first_words_are_scored(model, batches, records):
    start = torch.tensor([[2, 0]])
    for record, keep in itertools.product(records[:3], (1, 3)):
        inputs = read(batches, record)
        with torch.no_grad():
            first = model(**inputs, decoder_input_ids=start).logits[0, -1]
        words = [batches.reader.processor.tokenizer(answer).input_ids[1] for answer in ANSWERS]
        kept = sorted(range(len(ANSWERS)), key=lambda k: -float(first[words[k]]))[:keep]
        own = losses(model, batches, record, [ANSWERS[k] for k in kept])
        got = rank_answers(model, "vqa", [record], batches, ANSWERS, keep=keep)
        assert got == {record.id: ANSWERS[kept[own.index(min(own))]]}


def test_each_record_may_have_its_own_answers_and_equal_ones_go_to_the_first(model, batches, records):
    own = {record.id: [ANSWERS[k % 3], ANSWERS[3 + k % 3]] for k, record in enumerate(records)}
    got = rank_answers(model, "vqa", records, batches, own)
    assert all(got[key] in answers for key, answers in own.items())
    # Both words are unknown to the tokenizer, so that their scores are equal.
    assert set(rank_answers(model, "vqa", records, batches, ["zebra", "yak"]).values()) == {"zebra"}


def test_records_without_answers_are_refused(model, batches, records):
    with pytest.raises(ScoreInputError, match="but 8 have none, such as"):
        rank_answers(model, "vqa", records, batches, {records[0].id: ["red"]})
    with pytest.raises(ScoreInputError, match="`keep` must be at least 1, but is 0"):
        rank_answers(model, "vqa", records, batches, ANSWERS, keep=0)
