"""What a model can do is declared, and those that continue their prompt are asked as they were trained."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from weft.core.composites import (
    BlipAnswering,
    BlipAnsweringConfig,
    BlipCaptioning,
    BlipCaptioningConfig,
    BlipRetrieval,
    BlipRetrievalConfig,
)
from weft.data import Caption, ImageQA, MediaRef, PairBool, Retrieval
from weft.eval.errors import ScoreInputError
from weft.eval.evaluate.abilities import continues_prompt, lacking
from weft.eval.evaluate.inputs import IGNORED, Batches, TextRules
from weft.eval.evaluate.predict import predict, unfit
from weft.eval.evaluate.rank import rank_answers

TEXTS = "true false yes no what is the color of this star how many are there a b c d e"
WORDS = ["<s>", "</s>", "<pad>", "<unk>", *TEXTS.split()]
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {
    **SIZES,
    "vocab_size": 40,
    "encoder_hidden_size": 16,
    "max_position_embeddings": 48,
    "bos_token_id": 37,
    "sep_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "initializer_range": 0.5,
}
VISION = {**SIZES, "image_size": 16, "patch_size": 8, "initializer_range": 0.2}
IMAGE = MediaRef.from_bytes(b"")


def tokenizer(ends: bool = True, **settings: Any) -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if ends else "<s> $A", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **special, **settings)


class NoImages:
    def __call__(self, images: Sequence[Sequence[MediaRef]]) -> dict[str, torch.Tensor]:
        return {}


class Drawn:
    """Pixels by the place of a record, two images for each."""

    def __call__(self, images: Sequence[Sequence[MediaRef]]) -> dict[str, torch.Tensor]:
        seeds = [int(refs[0].path) for refs in images]
        rows = [torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return {"pixel_values": torch.stack(rows)}


def question(name: str, text: str) -> ImageQA:
    return ImageQA(id=name, image=IMAGE, image_id=name, question=text, answers=(text.split()[0],))


QUESTIONS = [
    question(str(k), text) for k, text in enumerate(["what", "what is the color of this star", "how many"])
]
STATEMENTS = [
    PairBool(id=str(k), images=(MediaRef.from_bytes(b"", str(k)),) * 2, group_id=str(k), sentence=text)
    for k, text in enumerate(["a b", "there are many of this color", "a", "c d e a b c d"])
]


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        **SIZES, vocab_size=len(WORDS), bos_token_id=0, eos_token_id=1, pad_token_id=2, initializer_range=0.5
    )
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_model_that_continues_its_prompt_answers_behind_it_whatever_the_padding(side):
    model = llama()
    batches = Batches(tokenizer(False, padding_side=side), NoImages(), {"t": TextRules(max_new_tokens=4)})
    found = predict(model, "t", QUESTIONS, batches)
    for record in QUESTIONS:
        prompt = batches.tokenizer(record.question, return_tensors="pt")
        tokens = model.generate(**prompt, max_new_tokens=4, do_sample=False)[0, prompt.input_ids.shape[1] :]
        assert found[record.id] == batches.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    assert any(found.values())


@pytest.mark.parametrize("side", ["left", "right"])
def test_true_or_false_is_decided_behind_the_prompt_where_a_model_continues_it(side):
    model = llama()
    batches = Batches(tokenizer(False, padding_side=side), NoImages(), {"t": TextRules()})
    found = predict(model, "t", STATEMENTS, batches)
    for record in STATEMENTS:
        with torch.no_grad():
            logits = model(**batches.tokenizer(record.sentence, return_tensors="pt")).logits[0, -1]
        assert found[record.id] == (
            "true" if logits[WORDS.index("true")] > logits[WORDS.index("false")] else "false"
        )
    assert len(set(found.values())) == 2
    with pytest.raises(ScoreInputError, match="but LlamaForCausalLM continues its prompt"):
        rank_answers(model, "t", QUESTIONS, batches, ["yes", "no"])


def blip(kind: Any, config: Any) -> Any:
    torch.manual_seed(0)
    return kind(
        config(text_config=TEXT, vision_config=VISION, image_text_hidden_size=8, encode_token_id=39)
    ).eval()


def test_a_blip_that_answers_judges_statements_by_the_loss_of_the_two_words():
    model = blip(BlipAnswering, BlipAnsweringConfig)
    assert unfit(model, STATEMENTS) is None
    batches = Batches(tokenizer(), Drawn(), {"t": TextRules()})
    found = predict(model, "t", STATEMENTS, batches)
    words = batches.tokenizer(["true", "false"], return_tensors="pt")
    for record in STATEMENTS:
        inputs = batches.inputs("t", [record])
        with torch.no_grad():
            states = model.encode_question(**inputs).expand(2, -1, -1)
            losses = model.answer_losses(
                words.input_ids, words.attention_mask, states, inputs["attention_mask"].expand(2, -1)
            )
        assert found[record.id] == ("true" if losses[0] < losses[1] else "false")
    assert len(set(found.values())) == 2


def test_what_a_model_does_not_declare_it_is_not_asked():
    caption = [Caption(id="1", media=IMAGE, media_id="1", captions=("a",))]
    pair = [Retrieval(id="1", media=IMAGE, media_id="1", text="a", text_id="1")]
    captioning = blip(BlipCaptioning, BlipCaptioningConfig)
    assert unfit(captioning, caption) is None
    assert unfit(captioning, STATEMENTS) == (
        "records of type 'pair_bool' need a model with `generate` and `forward` to tell how likely given "
        "answers are, but BlipCaptioning cannot tell how likely given answers are: it can write an answer"
    )
    retrieval = blip(BlipRetrieval, BlipRetrievalConfig)
    assert unfit(retrieval, pair) is None
    assert "BlipRetrieval cannot write an answer: it can give features" in str(unfit(retrieval, caption))
    assert lacking(retrieval, "match") is None
    plain = blip(transformers.BlipForQuestionAnswering, BlipAnsweringConfig)
    plain.config.model_type = "blip"
    assert "its counterpart in `weft.core.composites` can" in str(unfit(plain, STATEMENTS))
    assert not continues_prompt(plain)
    assert not continues_prompt(nn.Linear(1, 1))
    assert "Linear has no `generate`" in str(unfit(nn.Linear(1, 1), STATEMENTS))


@pytest.mark.parametrize("side", ["left", "right"])
def test_each_row_of_a_mixed_batch_is_cut_by_its_own_task(side):
    rules = {
        "short": TextRules(max_text_tokens=4, max_target_tokens=3),
        "long": TextRules(max_text_tokens=20, max_target_tokens=8),
    }
    batches = Batches(tokenizer(padding_side=side), NoImages(), rules)
    caption = Caption(id="c", media=IMAGE, media_id="c", captions=("a b c d e",))
    rows = [
        ("long", QUESTIONS[1]),
        ("short", QUESTIONS[1]),
        ("long", caption),
        ("short", caption),
        ("short", QUESTIONS[0]),
    ]
    mixed = batches.training(rows)
    for place, row in enumerate(rows):
        alone = batches.training([row])
        kept = mixed["attention_mask"][place] == 1
        assert torch.equal(mixed["input_ids"][place][kept], alone["input_ids"][0])
        assert (mixed["input_ids"][place][~kept] == 2).all()
        labels = mixed["labels"][place]
        assert torch.equal(labels[labels != IGNORED], alone["labels"][0])
    assert mixed["input_ids"].shape[1] == 9
    assert (mixed["attention_mask"].sum(1)).tolist() == [9, 4, 2, 2, 3]
    assert (mixed["labels"] != IGNORED).sum(1).tolist() == [3, 3, 7, 3, 3]


def test_texts_are_padded_to_the_length_that_a_model_wants():
    rules = {"t": TextRules(max_text_tokens=4), "u": TextRules()}
    batches = Batches(tokenizer(model_input_names=["input_ids"]), NoImages(), rules, text_length=12)
    texts = batches.texts([("t", QUESTIONS[1]), ("u", QUESTIONS[1])])
    assert texts["input_ids"].shape == (2, 12)
    assert texts["input_ids"][0, 4:].tolist() == [2] * 8
    assert texts["attention_mask"].all(), "a tokenizer without a mask is one of a model that reads padding"
    wanted = functional.pad(torch.tensor(batches.tokenizer(QUESTIONS[1].question).input_ids), (0, 3), value=2)
    assert torch.equal(texts["input_ids"][1], wanted)


def test_rows_of_one_batch_show_the_same_number_of_images():
    batches = Batches(tokenizer(), NoImages(), {"vqa": TextRules("", 8), "nlvr": TextRules("", 8)})
    one = ImageQA(id="1", image=IMAGE, image_id="1", question="what is this", answers=("a",))
    two = PairBool(id="2", images=(IMAGE, IMAGE), group_id="2", sentence="this star", label=True)
    with pytest.raises(ScoreInputError, match="must show the same number of images, but show 1 and 2"):
        batches.training([("vqa", one), ("nlvr", two)])
    assert len(batches.training([("vqa", one), ("vqa", one)])["tasks"]) == 2
