"""Batches without padding: losses, gradients and routing are those of the padded batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from PIL import Image

from weft.core import attach
from weft.core.testing.processed import tiny
from weft.eval.readers import Reader, ReaderError, Row, ask, reader_for
from weft.eval.readers.packing import packed
from weft.eval.testing.own_subjects import own_subject

PACKED = ("llava", "llava_onevision", "qwen2_5_vl", "qwen3_vl", "smolvlm", "internvl")
SIZES = ((60, 40), (40, 60), (64, 64), (96, 48), (50, 30))


def rows() -> list[Row]:
    """Rows of unequal length with none to three pictures of unequal shape, of two tasks."""
    pictures = [Image.new("RGB", size, (40 * place, 90, 200)) for place, size in enumerate(SIZES)]
    shown = ([], pictures[:1], pictures[1:4], pictures[4:], [])
    asked = ("what?", "describe the picture", "how many are there of them?", "is it red?", "two")
    return [
        ask(text, own, name=f"row {place}", task=f"t{place % 2}", answer=" ".join(["red"] * (1 + place)))
        for place, (text, own) in enumerate(zip(asked, shown, strict=True))
    ]


# Eager attention of transformers gives NaN for padding in float64.
PRECISIONS = {"sdpa": (torch.float64, 1e-6), "eager": (torch.float32, 2e-5)}


def adapted(name: str, method: dict[str, Any], attention: str) -> tuple[Any, Reader]:
    made = tiny(name)
    model = copy.deepcopy(made.model).to(PRECISIONS[attention][0])
    model.set_attn_implementation(attention)
    attach(model, method, ["t0", "t1"])
    generator = torch.Generator().manual_seed(0)
    for value in model.weft.parameters():
        value.data.normal_(std=0.1, generator=generator)
    return model.train(), reader_for(made.model.config, made.processor)


def learned(model: Any, reader: Reader) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    batch = reader.training(rows()).to("cpu", dtype=model.dtype)
    model.zero_grad()
    with model.route(tasks=batch.tasks):
        losses = reader.losses(model, batch)
        losses.rows.mean().backward()
    return losses.rows.detach(), {
        key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None
    }


METHODS = {
    "lora": {"method": "lora", "rank": 2, "sharing": "multiple", "towers": ["text", "vision"]},
    "bottleneck": {
        "method": "bottleneck",
        "reduction_factor": 4,
        "sharing": "multiple",
        "placement": "parallel",
    },
}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PACKED)
def test_losses_and_gradients_are_those_of_the_padded_batch(name: str, method: str, attention: str) -> None:
    model, reader = adapted(name, METHODS[method], attention)
    expected, gradients = learned(model, reader)
    seen: list[tuple[int, ...]] = []
    model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"].shape), with_kwargs=True
    )
    losses, found = learned(model, packed(reader))
    tokens = int(reader.training(rows()).inputs["attention_mask"].sum())
    assert seen[0][:2] == (1, tokens)
    limit = PRECISIONS[attention][1]
    torch.testing.assert_close(losses, expected, rtol=0, atol=limit)
    assert set(found) == set(gradients)
    for key, gradient in gradients.items():
        torch.testing.assert_close(found[key], gradient, rtol=0, atol=limit, msg=key)


def test_a_row_does_not_depend_on_the_row_before_it() -> None:
    model, reader = adapted("qwen2_5_vl", METHODS["lora"], "sdpa")
    own, reader = rows(), packed(reader)
    with torch.no_grad(), model.route(tasks=["t0", "t1"]):
        first = reader.losses(model, reader.training([own[2], own[1]]).to("cpu", dtype=torch.float64)).rows
        other = reader.losses(model, reader.training([own[4], own[1]]).to("cpu", dtype=torch.float64)).rows
    torch.testing.assert_close(first[1], other[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gemma3", "its masks say more than which row a token belongs to"),
        ("paligemma", "its masks say more than which row a token belongs to"),
        ("mllama", "its masks say more than which row a token belongs to"),
        ("blip2", "it takes no positions"),
        ("clip", "it reads no prompt and answer in one sequence"),
    ],
)
def test_a_model_whose_rows_are_not_kept_apart_is_refused(name: str, message: str) -> None:
    made = tiny(name)
    with pytest.raises(ReaderError, match=message):
        packed(reader_for(made.model.config, made.processor))


def test_models_of_ones_own_are_refused() -> None:
    with pytest.raises(ReaderError, match="reads no prompt and answer in one sequence"):
        packed(own_subject("vl_bart").reader)
