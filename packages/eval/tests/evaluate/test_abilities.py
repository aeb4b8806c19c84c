"""What a model can do is declared by its reader, and each row of a batch is read by the rules of its own task."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.nn import functional

from weft.core.composites import BlipAnswering, BlipAnsweringConfig
from weft.core.testing.processed.words import word_tokenizer
from weft.core.testing.vision_language import blip_fields
from weft.data import Caption, ImageQA, MediaRef, PairBool, Retrieval
from weft.eval.evaluate.inputs import TextRules
from weft.eval.evaluate.predict import predict, unfit
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.evaluate.visual import Visual
from weft.eval.readers import PairedProcessor, ReaderError, ask, is_paired, reader_for
from weft.eval.readers.batch import IGNORED
from weft.eval.testing.own_subjects import OWN, own_subject, paired_batches
from weft.eval.testing.tiny_subjects import tiny_subject

TEXTS = "true false yes no what is the color of this star how many are there a b c d e"
WORDS = ["<s>", "</s>", "<pad>", "<unk>", *TEXTS.split()]
TEXT = {
    "vocab_size": 40,
    "max_position_embeddings": 48,
    "bos_token_id": 37,
    "sep_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "initializer_range": 0.5,
}
IMAGE = MediaRef.from_bytes(b"")


class Drawn(Visual):
    """Pixels by the place of a record, two images for each."""

    def __call__(self, images: Sequence[Sequence[MediaRef]]) -> dict[str, torch.Tensor]:
        seeds = [len(refs[0].path) for refs in images]
        rows = [torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return {"pixel_values": torch.stack(rows)}


def question(name: str, text: str) -> ImageQA:
    return ImageQA(id=name, image=IMAGE, image_id=name, question=text, answers=(text.split()[0],))


QUESTIONS = [
    question(str(k), text) for k, text in enumerate(["what", "what is the color of this star", "how many"])
]
STATEMENTS = [
    PairBool(id=str(k), images=(MediaRef.from_bytes(b"", "x" * k),) * 2, group_id=str(k), sentence=text)
    for k, text in enumerate(["a b", "there are many of this color", "a", "c d e a b c d"])
]


def read(rules: dict[str, TextRules], words: Any = None) -> ReaderBatches:
    return paired_batches(own_subject("vl_bart").model.config, words or word_tokenizer(WORDS), Drawn(), rules)


def test_a_blip_that_answers_judges_statements_by_the_loss_of_the_two_words() -> None:
    torch.manual_seed(0)
    fields = blip_fields(text=TEXT, vision={"initializer_range": 0.2})
    config = BlipAnsweringConfig(**fields, encode_token_id=39)
    model = BlipAnswering(config).eval()
    batches = paired_batches(config, word_tokenizer(WORDS), Drawn(), {"t": TextRules()})
    assert unfit(batches.reader, STATEMENTS) is None
    found = predict(model, "t", STATEMENTS, batches)
    assert isinstance(found, dict)
    words = word_tokenizer(WORDS)(["true", "false"], return_tensors="pt")
    for record in STATEMENTS:
        inputs = batches.reader.asking([batches.row("t", record)]).inputs
        with torch.no_grad():
            states = model.encode_question(**inputs).expand(2, -1, -1)
            losses = model.answer_losses(
                words.input_ids, words.attention_mask, states, inputs["attention_mask"].expand(2, -1)
            )
        assert found[record.id] == ("true" if losses[0] < losses[1] else "false")
    assert len(set(found.values())) == 2


def test_what_a_reader_does_not_declare_its_model_is_not_asked() -> None:
    caption = [Caption(id="1", media=IMAGE, media_id="1", captions=("a",))]
    pair = [Retrieval(id="1", media=IMAGE, media_id="1", text="a", text_id="1")]
    captioning = own_subject("weft_blip_captioning").reader
    assert unfit(captioning, caption) is None
    assert "need a model that can give features" in str(unfit(captioning, pair))
    retrieval = own_subject("weft_blip_retrieval").reader
    assert unfit(retrieval, pair) is None
    assert str(unfit(retrieval, caption)) == (
        "records of type 'caption' need a model that can write an answer, but a model of type weft_blip_retrieval, "
        "read as 'weft_blip', cannot write an answer: it can give features of texts and of images and tell whether a "
        "text belongs to an image"
    )
    assert retrieval.lacking("match") is None
    assert retrieval.keeps_momentum
    assert [name for name in OWN if own_subject(name).reader.weighs] == ["weft_blip_answering"]


def test_a_model_without_a_processor_of_transformers_is_known_by_its_config() -> None:
    assert all(is_paired(own_subject(name).model.config) for name in OWN)
    assert not any(
        is_paired(tiny_subject(name).model.config) for name in ("clip", "blip_vqa", "florence2", "llava")
    )
    # Before there is a tokenizer, rows can be checked.
    reader = reader_for(own_subject("vl_t5").model.config, PairedProcessor())
    reader.check(ask("what?", [IMAGE]))
    with pytest.raises(ReaderError, match="text before one"):
        reader.check(ask("what?", ["this", IMAGE]))


@pytest.mark.parametrize("side", ["left", "right"])
def test_each_row_of_a_mixed_batch_is_cut_by_its_own_task(side: str) -> None:
    rules = {
        "short": TextRules(max_text_tokens=4, max_target_tokens=3),
        "long": TextRules(max_text_tokens=20, max_target_tokens=8),
    }
    batches = read(rules, word_tokenizer(WORDS, padding_side=side))
    caption = Caption(id="c", media=IMAGE, media_id="c", captions=("a b c d e",))
    rows = [
        ("long", QUESTIONS[1]),
        ("short", QUESTIONS[1]),
        ("long", caption),
        ("short", caption),
        ("short", QUESTIONS[0]),
    ]
    mixed = batches.training(rows)["batch"]
    ids, mask = mixed.inputs["input_ids"], mixed.inputs["attention_mask"]
    for place, row in enumerate(rows):
        alone = batches.training([row])["batch"]
        kept = mask[place] == 1
        assert torch.equal(ids[place][kept], alone.inputs["input_ids"][0])
        assert (ids[place][~kept] == 2).all()
        labels = mixed.labels[place]
        assert torch.equal(labels[labels != IGNORED], alone.labels[0])
    assert mask.sum(1).tolist() == [9, 4, 2, 2, 3]
    assert (mixed.labels != IGNORED).sum(1).tolist() == [3, 3, 7, 3, 3]


def test_texts_are_padded_to_the_length_that_a_model_wants() -> None:
    words = word_tokenizer(WORDS, model_input_names=["input_ids"])
    processor = PairedProcessor(words, text_length=12)
    texts = [QUESTIONS[1].question] * 2
    ids, mask = processor.encoded(texts, [4, 64], processor.text_length)
    assert ids.shape == (2, 12)
    assert ids[0, 4:].tolist() == [2] * 8
    assert mask.all(), "a tokenizer without a mask is one of a model that reads padding"
    assert torch.equal(ids[1], functional.pad(torch.tensor(words(texts[0]).input_ids), (0, 3), value=2))


def test_rows_of_one_batch_show_the_same_number_of_images() -> None:
    batches = read({"vqa": TextRules("", "start", 8), "nlvr": TextRules("", "start", 8)})
    one = ImageQA(id="1", image=IMAGE, image_id="1", question="what is this", answers=("a",))
    two = PairBool(id="2", images=(IMAGE, IMAGE), group_id="2", sentence="this star", label=True)
    with pytest.raises(ReaderError, match="must show the same number of images, but show 1 and 2"):
        batches.training([("vqa", one), ("nlvr", two)])
    assert len(batches.training([("vqa", one), ("vqa", one)])["tasks"]) == 2


def test_a_record_without_an_answer_is_learned_at_weight_zero() -> None:
    batches = read({"vqa": TextRules()})
    hidden = ImageQA(id="h", image=IMAGE, image_id="h", question="what is this")
    batch = batches.training([("vqa", hidden), ("vqa", QUESTIONS[0])])["batch"]
    assert batch.weights.tolist() == [0.0, 1.0]
    with pytest.raises(ReaderError, match="must hold a word to learn"):
        batches.reader.training([ask("what?", [IMAGE], answer="")])
