"""What is found out about chat templates and tokenizers by asking them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from weft.core.testing.processed import tiny
from weft.core.testing.processed.words import SENTENCES
from weft.eval.readers import ReaderError, Row, Turn, ask, reader_for
from weft.eval.readers.answer_tokens import AnswerTokens
from weft.eval.readers.template import Template
from weft.eval.testing import picture


def templated(name: str, template: str | None) -> tuple[Any, Any]:
    """Config and processor of a tiny model, with another template."""
    made = tiny(name)
    processor = copy.copy(made.processor)
    processor.chat_template = template
    return made.model.config, processor


def test_an_answer_ends_as_the_template_ends_it() -> None:
    ends = {
        name: Template(tiny(name).processor, tiny(name).model.config).end for name in ("llava", "smolvlm")
    }
    assert ends == {"llava": "</s>", "smolvlm": "<end_of_utterance>\n"}


def test_an_answer_that_the_template_does_not_end_gets_the_token_that_stops_writing() -> None:
    config, processor = templated("llava", tiny("llava").processor.chat_template.replace("'</s>'", "' '"))
    assert Template(processor, config).end == "</s>"
    batch = reader_for(config, processor).training([ask("what?", [picture(40, 40, 0)], answer="red")])
    assert processor.tokenizer.decode(batch.labels[0][batch.labels[0] != -100]) == "red</s>"


def test_the_beginning_is_written_once_by_the_template_or_by_the_tokenizer() -> None:
    for name in ("llava", "smolvlm"):
        made = tiny(name)
        batch = reader_for(made.model.config, made.processor).training([ask("what?", answer="red")])
        assert (batch.inputs["input_ids"] == made.processor.tokenizer.bos_token_id).sum() == 1


def test_a_template_that_leaves_out_what_is_said_or_shown_is_refused() -> None:
    mute = "{% for message in messages %}{{ message.role }}: {% endfor %}"
    with pytest.raises(ReaderError, match="must write what user and assistant say"):
        reader_for(*templated("llava", mute))
    blind = (
        "{% for message in messages %}{% for part in message.content if part.type == 'text' %}{{ part.text }}"
        "{% endfor %}{% endfor %}"
    )
    with pytest.raises(ReaderError, match="must write something for every picture"):
        reader_for(*templated("llava", blind))


def test_earlier_answers_that_the_template_rewrites_are_not_learned() -> None:
    template = tiny("llava").processor.chat_template
    ended = "{{ '</s>' if message.role == 'assistant' else ' ' }}"
    rewriting = template.replace(ended, "{{ '</s>' if loop.last and not add_generation_prompt else ' ' }}")
    assert rewriting != template
    turns = (Turn("user", ("what?",)), Turn("assistant", ("blue",)), Turn("user", ("and now?",)))
    with pytest.raises(ReaderError, match="writes earlier answers as it writes the last"):
        reader_for(*templated("llava", rewriting)).training([Row("row", "", turns, "red", learn="all")])


def spaced(scheme: str) -> Any:
    """A tokenizer that marks blanks as sentencepiece does, and may write one before a text."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    special = ["<unk>", "<s>", "</s>"]
    made.train_from_iterator(
        SENTENCES * 8, trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_one_blank_stands_before_an_answer_whether_the_tokenizer_writes_it_or_not(scheme: str) -> None:
    tokenizer = spaced(scheme)
    pieces = tokenizer.convert_ids_to_tokens(AnswerTokens(tokenizer)(" red"))
    assert "".join(pieces) == "▁red"


@pytest.mark.parametrize("scheme", ["first", "never"])
def test_an_answer_behind_no_blank_gets_none(scheme: str) -> None:
    tokenizer = spaced(scheme)
    assert "".join(tokenizer.convert_ids_to_tokens(AnswerTokens(tokenizer)("red"))) == "red"


def test_a_reader_travels_to_the_workers_that_make_batches() -> None:
    made, row = tiny("qwen2_5_vl"), ask("what?", [picture(40, 60, 0)], answer="red")
    read = reader_for(made.model.config, made.processor)
    batch, again = read.training([row]), pickle.loads(pickle.dumps(read)).training([row])
    assert batch.inputs.keys() == again.inputs.keys()
    assert all(torch.equal(value, again.inputs[name]) for name, value in batch.inputs.items())
    assert torch.equal(batch.labels, again.labels)
