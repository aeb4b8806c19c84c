"""The tiny models as subjects, with what their own processors make of rows: no code of a reader is used here."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import Florence2ForConditionalGeneration

from weft.core.testing.processed import TINY, Tiny, tiny
from weft.eval.readers import Row
from weft.eval.readers.processor import NUMPY_OF_TENSORS
from weft.eval.testing.subject import Subject

IGNORED = -100
Inputs = dict[str, Any]


def tiny_subject(name: str) -> Subject:
    """One of the tiny models of `weft.core.testing.processed`.

    Args:
        name: Key of `TINY`.
    """
    made = tiny(name)
    inputs, loss = _OWN.get(name, (_chat_inputs, partial(_mean, _chat_learned)))
    return Subject(
        title=name,
        model=made.model,
        processor=made.processor,
        own_inputs=partial(inputs, made),
        own_loss=None if loss is None else partial(loss, made),
    )


def tiny_subjects() -> list[Subject]:
    """All of them."""
    return [tiny_subject(name) for name in TINY]


def _nested(rows: Sequence[Row]) -> list[list[Any]]:
    return [list(row.pictures) for row in rows]


def _flat(rows: Sequence[Row]) -> list[Any]:
    return [picture for row in rows for picture in row.pictures]


def _texts(rows: Sequence[Row]) -> list[str]:
    return [row.text for row in rows]


def _call(made: Tiny, **arguments: Any) -> Inputs:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=NUMPY_OF_TENSORS, category=DeprecationWarning)
        return dict(made.processor(padding=True, return_tensors="pt", **arguments))


def _mean(learned: Callable[[Tiny, Row], Inputs], made: Tiny, rows: Sequence[Row]) -> Tensor:
    """The model's own mean loss over the tokens of rows, each read alone and without padding."""
    losses, counts = [], []
    for row in rows:
        inputs = learned(made, row)
        losses.append(made.model(**inputs).loss)
        labels = inputs["labels"]
        first = 0 if made.model.config.get_text_config(decoder=True).is_encoder_decoder else 1
        counts.append(int((labels[:, first:] != IGNORED).sum()))
    weights = torch.tensor(counts, dtype=losses[0].dtype)
    return (torch.stack(losses) * weights).sum() / weights.sum()


def _said(row: Row, answered: bool) -> list[dict[str, Any]]:
    parts = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
        for part in row.turns[0].parts
    ]
    said: list[dict[str, Any]] = [{"role": "user", "content": parts}]
    if answered:
        said.append({"role": "assistant", "content": [{"type": "text", "text": row.answer}]})
    return said


def _chat_inputs(made: Tiny, rows: Sequence[Row]) -> Inputs:
    prompts = [
        made.processor.apply_chat_template(_said(row, False), add_generation_prompt=True) for row in rows
    ]
    begins = prompts[0].startswith(made.processor.tokenizer.bos_token)
    return _call(made, images=_nested(rows), text=prompts, add_special_tokens=not begins)


def _chat_learned(made: Tiny, row: Row) -> Inputs:
    prompt = made.processor.apply_chat_template(_said(row, False), add_generation_prompt=True)
    whole = made.processor.apply_chat_template(_said(row, True))
    return _followed(made, _chat_inputs(made, [row]), whole[len(prompt) :])


def _followed(made: Tiny, inputs: Inputs, text: str) -> Inputs:
    """A prompt of one row with the tokens of what follows it, which is learned."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    answer = made.processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    grown = {
        name: torch.cat([value, torch.zeros_like(answer)], 1)
        for name, value in inputs.items()
        if name.endswith("token_type_ids")
    }
    looked = inputs.get("cross_attention_mask")
    if looked is not None:
        grown["cross_attention_mask"] = torch.cat(
            [looked, looked[:, -1:].repeat(1, answer.shape[1], 1, 1)], 1
        )
    return inputs | {
        **grown,
        "input_ids": torch.cat([ids, answer], 1),
        "attention_mask": torch.cat([mask, torch.ones_like(answer)], 1),
        "labels": torch.cat([torch.full_like(ids, IGNORED), answer], 1),
    }


def _paligemma_inputs(made: Tiny, rows: Sequence[Row]) -> Inputs:
    marked = ["<image>" * len(row.pictures) + row.text for row in rows]
    inputs = _call(made, images=_nested(rows), text=marked)
    inputs.pop("labels")
    return inputs


def _paligemma_learned(made: Tiny, row: Row) -> Inputs:
    return _call(made, images=_nested([row]), text=[f"<image>{row.text}"], suffix=[row.answer])


def _query_inputs(made: Tiny, rows: Sequence[Row]) -> Inputs:
    return _call(made, images=_flat(rows), text=_texts(rows))


def _query_learned(made: Tiny, row: Row) -> Inputs:
    return _followed(made, _query_inputs(made, [row]), f" {row.answer}</s>")


def _labels_shifted_once() -> bool:
    """Whether this release of transformers shifts Florence-2's labels once; older ones shift them again in the loss."""
    return "shift_labels" in inspect.getsource(Florence2ForConditionalGeneration.forward)


def _labelled(inputs: Callable[..., Inputs], made: Tiny, row: Row) -> Inputs:
    labels = made.processor.tokenizer([row.answer], return_tensors="pt")["input_ids"]
    return inputs(made, [row]) | {"labels": labels}


def _pair_inputs(made: Tiny, rows: Sequence[Row]) -> Inputs:
    options: Inputs = {"padding": True}
    if made.name != "clip":
        options = {"padding": "max_length", "max_length": 16}
    if made.name == "siglip2":
        options |= {"patch_size": 8, "max_num_patches": 16}
    return dict(made.processor(images=_flat(rows), text=_texts(rows), return_tensors="pt", **options))


def _pair_loss(made: Tiny, rows: Sequence[Row]) -> Tensor:
    loss: Tensor = made.model(**_pair_inputs(made, rows), return_loss=True).loss
    return loss


def _blip_inputs(made: Tiny, rows: Sequence[Row]) -> Inputs:
    inputs = _call(made, images=_flat(rows), text=_texts(rows))
    inputs.pop("token_type_ids", None)
    return inputs


def _captioned(made: Tiny, row: Row) -> Inputs:
    inputs = _blip_inputs(made, [row])
    # The caption is where the prompt's last special token was.
    open_ended = {name: inputs[name][:, :-1] for name in ("input_ids", "attention_mask")}
    return _followed(made, inputs | open_ended, f"{row.answer}</s>")


_PAIRS = (_pair_inputs, _pair_loss)
_QUERIES = (_query_inputs, partial(_mean, _query_learned))
_OWN: dict[str, tuple[Callable[..., Inputs], Callable[..., Tensor] | None]] = {
    "paligemma": (_paligemma_inputs, partial(_mean, _paligemma_learned)),
    "blip2": _QUERIES,
    "instructblip": _QUERIES,
    "florence2": (
        _query_inputs,
        partial(_mean, partial(_labelled, _query_inputs)) if _labels_shifted_once() else None,
    ),
    "clip": _PAIRS,
    "siglip": _PAIRS,
    "siglip2": _PAIRS,
    "blip_itr": (_blip_inputs, None),
    "blip_vqa": (_blip_inputs, partial(_mean, partial(_labelled, _blip_inputs))),
    "blip_caption": (_blip_inputs, partial(_mean, _captioned)),
}
