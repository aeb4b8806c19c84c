"""Features of a frozen tower that training reads in the place of pictures that the model's own processor shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from weft.core.testing.processed import tiny
from weft.data.features.store import FeatureStore
from weft.eval.readers import ReaderError
from weft.eval.readers.picture_features import holder_of
from weft.train.engine.session import Session
from weft.train.errors import RunError
from weft.train.preflight.fitness import check_fit
from weft.train.preflight.learned import load_learnable
from weft.train.preflight.tasks import check_recipe, load_tasks
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.training import Recipe
from weft.train.runs.dry_run import dry_run
from weft.train.runs.extract import extract_keys
from weft.train.runs.open_session import open_session
from weft.train.runs.run import execute
from weft.train.testing.curves import adapter_weights
from weft.train.testing.own_data import own_task, short_run, write_own_data

TALKERS = ("llava", "llava_onevision", "qwen2_5_vl", "qwen3_vl", "smolvlm", "gemma3", "internvl")
STORED = "training.vision=stored"

Make = Callable[..., Recipe]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_own_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def make(data: Path, tmp_path: Path) -> Make:
    """A recipe of seconds, with changes."""

    def recipe(name: str, *changes: str, towers: list[str] | None = None, **method: Any) -> Recipe:
        folder = tmp_path / name
        if not folder.exists():
            tiny(name).save(folder)
        values = {
            "name": "own",
            "backbone": {"name": str(folder)},
            "method": {
                "method": "lora",
                "rank": 2,
                "sharing": "multiple",
                "towers": towers or ["text"],
                **method,
            },
            "tasks": {
                "vqa": own_task(data, "image_qa", ask="{question}", metric="exact", max_new_tokens=3),
                **({"talk": own_task(data, "conversation", learn="last")} if name in TALKERS else {}),
            },
            **short_run(tmp_path / "runs"),
        }
        if name in TALKERS:
            values["tasks"]["talk"]["data"]["test"] = None
            values["tasks"]["talk"]["data"]["validation"] = None
        return load_recipe(values, list(changes))

    return recipe


def opened(recipe: Recipe) -> Session:
    return open_session(recipe, load_tasks(recipe, ("train",)))


def learned(session: Session, rows: list[tuple[str, Any]]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model: Any = session.model.double().train()
    reader: Any = session.batches.reader  # type: ignore[union-attr]
    batch = session.batches.training(rows)["batch"].to("cpu", dtype=torch.float64)
    with model.route(tasks=batch.tasks):
        losses = reader.losses(model, batch).rows
        losses.mean().backward()
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    return losses.detach(), found


@pytest.mark.parametrize("name", [*TALKERS, "paligemma"])
def test_losses_and_gradients_are_those_of_the_pictures(name: str, make: Make) -> None:
    shown = opened(make(name))
    read = opened(make(name, STORED))
    for session in (shown, read):
        for value in session.model.weft.parameters():
            value.data.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    holder_of(read.model).get_image_features = lambda *given, **named: pytest.fail("the tower ran")
    # Rows with none to three pictures, of many shapes, some of them twice.
    tasks = shown.tasks
    rows = [
        (task, record) for task in tasks for record in (tasks[task]["train"][place] for place in range(6))
    ]
    expected, gradients = learned(shown, rows)
    for _ in range(2):  # the second time, sizes of pictures are known
        read.model.zero_grad()
        losses, found = learned(read, rows)
        torch.testing.assert_close(losses, expected, rtol=0, atol=1e-6)
        assert set(found) == set(gradients)
        for key, gradient in gradients.items():
            torch.testing.assert_close(found[key], gradient, rtol=0, atol=1e-6)


def test_a_run_learns_what_it_would_learn_from_pictures(make: Make) -> None:
    shown = execute(make("qwen2_5_vl"))
    read = execute(make("qwen2_5_vl", STORED, "name=read"))
    weights = adapter_weights(shown.folder)
    found = adapter_weights(read.folder)
    assert set(found) == set(weights)
    for key, value in weights.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-5)


def test_features_are_extracted_once_for_all_runs(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make("llava", STORED)
    assert extract_keys(recipe, None) == {"training.vision": "stored", "output": recipe.output}
    (folder,) = (Path(recipe.output) / "features").iterdir()
    pictures = {
        ref.path for data in load_tasks(recipe).values() for row in data["train"] for ref in row.media_refs()
    }
    assert len(FeatureStore(folder)) == len(pictures)
    monkeypatch.setattr(
        "weft.data.features.extract.encode_part", lambda *given: pytest.fail("extracted again")
    )
    opened(recipe)


def test_other_weights_of_the_connector_are_other_features(make: Make, tmp_path: Path) -> None:
    opened(make("llava", STORED))
    other = tiny("llava").model.__class__.from_pretrained(tmp_path / "llava")
    with torch.no_grad():
        other.model.multi_modal_projector.linear_1.bias += 1
        other.save_pretrained(tmp_path / "llava")
    opened(make("llava", STORED))
    assert len(list((tmp_path / "runs" / "features").iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("blip2", {}, "does not read features in the place of pictures"),
        ("mllama", {}, "does not read features in the place of pictures"),
        ("llava", {"towers": ["text", "vision"]}, "sites or parameters lie before the language model"),
        ("llava", {"components": ["projector"]}, "such as model.multi_modal_projector"),
        ("llava", {"train_full": ["projector"]}, "such as model.multi_modal_projector"),
    ],
    ids=["q-former", "cross-attention", "adapted tower", "adapted connector", "trained connector"],
)
def test_what_cannot_be_stored_is_refused_before_weights_are_loaded(
    name: str, changes: dict[str, Any], message: str, make: Make
) -> None:
    recipe = make(name, STORED, **changes)
    check_recipe(recipe)
    with pytest.raises(RunError, match=message):
        check_fit(recipe, load_learnable(recipe))


def test_grey_pictures_are_not_stored(make: Make) -> None:
    recipe = make("llava", STORED, "blank_images=true")
    with pytest.raises(RunError, match="grey pictures have no stored features"):
        check_fit(recipe, load_learnable(recipe))


def test_a_store_elsewhere_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="lie beside the runs"):
        extract_keys(make("llava"), tmp_path / "elsewhere")


def test_a_dry_run_says_that_features_are_read(make: Make) -> None:
    assert "extracts features once, and training reads them" in str(dry_run(make("llava", STORED)))


def test_a_picture_that_is_seen_otherwise_is_refused(make: Make) -> None:
    session = opened(make("llava", STORED))
    batches: Any = session.batches
    record = session.tasks["vqa"]["train"][0]
    batches.stored.places = dict.fromkeys(batches.stored.places, 0)
    short = torch.zeros(3, 16).numpy()
    batches.stored.store = [short]
    with pytest.raises(ReaderError, match="tokens for pictures and features for 3"):
        batches.training([("vqa", record)])
