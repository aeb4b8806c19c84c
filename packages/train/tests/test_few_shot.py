"""The few-shot route: recipe to table, on pictures that are drawn here and on real ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from weft.core.errors import CheckpointError, FewShotError
from weft.core.few_shot import ContextPrompts, CoOp, Provenance, load_head
from weft.core.few_shot.files import class_names_of
from weft.data import draw_few_shot, load_dataset
from weft.train.backbones.encoders import load_encoder
from weft.train.cli.app import main
from weft.train.errors import RecipeError, RunError
from weft.train.output.progress import Progress
from weft.train.recipe.files import built_in_recipes
from weft.train.recipe.loading import load_any
from weft.train.runs.few_shot.draws import draw, load_records
from weft.train.runs.few_shot.features import Extractor
from weft.train.runs.few_shot.plan import plan_few_shot
from weft.train.runs.few_shot.rescore import rescore_few_shot
from weft.train.runs.few_shot.run import execute_few_shot
from weft.train.testing.few_shot_sets import few_shot_recipe, write_colours

COLOURS = {"crimson": (200, 20, 40), "navy": (20, 30, 120), "olive": (120, 120, 20), "teal": (0, 130, 130)}


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of noisy one-colour pictures, by split and class."""
    counts = {"train": 6, "validation": 4, "test": 8}
    return write_colours(tmp_path_factory.mktemp("colours"), COLOURS, counts)


@pytest.fixture
def values(clip: str, colours: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "name": "colours",
        "encoder": {"name": clip, "width": 16},
        "data": {
            "name": "image_folder",
            "root": str(colours),
            "validation": "validation",
            "num_classes": 4,
        },
        "heads": [
            {"method": "zero_shot"},
            {"method": "tip_adapter", "search_steps": [20, 5]},
            {
                "method": "tip_adapter",
                "label": "tip, scale 20",
                "search_scale": [20, 5],
                "search_steps": [20, 5],
            },
            {"method": "xmadapter", "epochs": 3, "search_steps": [20, 5]},
        ],
        "shots": [1, 4],
        "seeds": [1, 2],
        "views": {"count": 2},
        "tracking": {"enabled": False},
        "output": str(tmp_path / "runs"),
        "threads": 1,
    }


def test_a_run_gives_a_table_a_plot_and_heads(values: dict[str, Any]) -> None:
    result = execute_few_shot(few_shot_recipe(values))
    assert len(result.cells) == 4 * 2 * 2
    text = (result.folder / "table.txt").read_text()
    assert text == result.text()
    assert "K=1" in text
    assert "±" in text
    assert result.mean("tip_adapter", "test") > result.mean("zero_shot", "test") + 20
    assert (result.folder / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    saved = json.loads((result.folder / "result.json").read_text())["cells"]
    assert [cell["accuracies"]["test"] for cell in saved] == [
        cell.accuracies["test"] for cell in result.cells
    ]
    assert len((result.folder / "cells.csv").read_text().splitlines()) == 17
    assert all(
        0 <= cell.calibration_error <= 1 for cell in result.cells if cell.calibration_error is not None
    )
    votes = {path.name for path in (result.folder / "votes").iterdir()}
    assert votes == {f"{head}.{kind}" for head in result.heads[1:] for kind in ("txt", "png")}
    assert (result.folder / "votes" / "tip_adapter.txt").read_text().count("predicted: ") == 4
    folder = result.folder / "heads" / "xmadapter-K4-seed2"
    assert class_names_of(folder) == sorted(COLOURS)
    with pytest.raises(CheckpointError, match="is stale"):
        load_head(folder, provenance=Provenance("other", "other", "other"))
    again = execute_few_shot(few_shot_recipe(values, name="again"))
    assert [c.accuracies for c in again.cells] == [c.accuracies for c in result.cells]
    with pytest.raises(RunError, match="`name` must be new"):
        execute_few_shot(few_shot_recipe(values))


def test_the_saved_head_scores_what_the_table_says(values: dict[str, Any]) -> None:
    result = execute_few_shot(
        few_shot_recipe(values, heads=[{"method": "tip_adapter"}], shots=[4], seeds=[1])
    )
    encoder, transform = load_encoder(few_shot_recipe(values).encoder)
    extractor = Extractor(encoder, transform, Path(values["output"]) / "fresh", 5, Progress())
    records = load_dataset("image_folder", values["data"]["root"], "test")
    head = load_head(result.folder / "heads" / "tip_adapter-K4-seed1")
    right = head.logits(extractor.plain(records, "test")).argmax(1) == torch.tensor(
        [r.label for r in records]
    )
    assert 100 * float(right.double().mean()) == pytest.approx(result.cells[0].accuracies["test"])


def test_draws_are_those_of_the_protocol_and_validation_images_are_others(values: dict[str, Any]) -> None:
    records = load_records(few_shot_recipe(values))
    train, validation = draw(records, 4, 2)
    expected = draw_few_shot(records.train, records.validation, shots=4, seed=2)
    assert [r.id for r in train] == [records.train[k].id for k in expected.train]
    assert [r.id for r in validation] == [records.validation[k].id for k in expected.validation]
    rest = load_records(few_shot_recipe(values, data={**values["data"], "validation": None, "test": None}))
    assert len(rest.train) == len(rest.test["test"]) == 12
    assert not {r.id for r in rest.train} & {r.id for r in rest.test["test"]}
    train, validation = draw(rest, 2, 1)
    assert not {r.id for r in train} & {r.id for r in validation}
    with pytest.raises(RunError, match="must be a split where 3 shots take every training image"):
        draw(rest, 3, 1)


def test_selecting_on_the_test_set_is_said_under_the_table(values: dict[str, Any]) -> None:
    heads = [{"method": "tip_adapter", "search_scale": [7, 3]}]  # the grid of the papers
    honest = execute_few_shot(few_shot_recipe(values, heads=heads, shots=[4], seeds=[1]))
    paper = execute_few_shot(
        few_shot_recipe(values, heads=heads, shots=[4], seeds=[1], name="p", selection="paper")
    )
    assert "chosen on the test set" in paper.text()
    assert "chosen on the test set" not in honest.text()
    assert paper.cells[0].accuracies["test"] >= honest.cells[0].accuracies["test"]
    head = load_head(paper.folder / "heads" / "tip_adapter-K4-seed1")
    assert head.selected_on == "paper"
    nothing = execute_few_shot(
        few_shot_recipe(values, heads=heads, shots=[4], seeds=[1], name="n", selection="none")
    )
    assert nothing.cells[0].selected == {"alpha": 1.0, "beta": 5.5}
    assert nothing.cells[0].calibration_error is None


def test_base_to_new_leaves_new_classes_to_their_names(values: dict[str, Any]) -> None:
    result = execute_few_shot(few_shot_recipe(values, protocol="base_to_new", shots=[4], seeds=[1]))
    scores = {cell.head: cell.accuracies for cell in result.cells}
    assert set(scores["zero_shot"]) == {"base", "new", "harmonic mean"}
    assert len({accuracies["new"] for accuracies in scores.values()}) == 1
    assert scores["tip_adapter"]["base"] > scores["zero_shot"]["base"]
    assert load_head(result.folder / "heads" / "tip_adapter-K4-seed1").num_classes == 2


def test_a_shifted_test_set_of_fewer_classes_is_scored_among_these(values: dict[str, Any]) -> None:
    shifted = {"few": {"name": "image_folder", "root": values["data"]["root"], "split": "validation"}}
    result = execute_few_shot(few_shot_recipe(values, shifted=shifted, shots=[4], seeds=[1]))
    assert set(result.tests) == {"test", "few"}
    records = load_dataset("image_folder", values["data"]["root"], "validation")
    best = next(cell for cell in result.cells if cell.head == "tip_adapter")
    assert best.accuracies["few"] * len(records) % 100 == pytest.approx(0, abs=1e-6)


def test_several_data_sets_share_one_table(values: dict[str, Any]) -> None:
    second = {**values["data"], "train": "test", "test": "train"}
    heads = values["heads"][:2]
    alone = execute_few_shot(few_shot_recipe(values, name="alone", heads=heads, shots=[4], data=second))
    own = execute_few_shot(few_shot_recipe(values, name="own", heads=heads, shots=[4]))
    both = execute_few_shot(
        few_shot_recipe(
            values,
            name="both",
            heads=heads,
            shots=[4],
            data={**values["data"], "label": "colours"},
            also={"swapped": {"data": second}},
        )
    )
    assert both.tests == ["average", "colours", "swapped"]
    for cell, first, other in zip(both.cells, own.cells, alone.cells, strict=True):
        assert cell.accuracies["colours"] == first.accuracies["test"]
        assert cell.accuracies["swapped"] == other.accuracies["test"]
        assert cell.accuracies["average"] == pytest.approx(
            (first.accuracies["test"] + other.accuracies["test"]) / 2
        )
    assert "both: accuracy on average, per cent" in both.text()
    assert (both.folder / "votes" / "swapped" / "tip_adapter.png").is_file()
    assert load_head(both.folder / "heads" / "colours" / "tip_adapter-K4-seed1").num_classes == 4
    planned = plan_few_shot(few_shot_recipe(values, also={"swapped": {"data": {**second, "num_classes": 7}}}))
    assert planned.also["swapped"].num_classes == 7
    assert "swapped: 7 classes" in str(planned)


def test_a_test_set_of_other_classes_is_scored_by_their_names(values: dict[str, Any]) -> None:
    other = {"name": "image_folder", "root": values["data"]["root"], "split": "validation"}
    other["class_names"] = {"crimson": "navy dress", "navy": "long hat"}
    coop = {"method": "coop", "context_tokens": 2, "epochs": 5, "learning_rate": 0.5}
    heads = [*values["heads"][:2], coop]
    result = execute_few_shot(
        few_shot_recipe(values, heads=heads, transfer={"other": other}, shots=[4], seeds=[1])
    )
    assert result.tests == ["test", "other"]
    encoder, transform = load_encoder(few_shot_recipe(values).encoder)
    extractor = Extractor(encoder, transform, Path(values["output"]) / "fresh", 5, Progress())
    records = load_dataset("image_folder", values["data"]["root"], "validation")
    features, labels = extractor.plain(records, "other"), torch.tensor([r.label for r in records])
    names = ["navy dress", "long hat", "olive", "teal"]

    def score(logits: torch.Tensor) -> float:
        return 100 * float((logits.argmax(1) == labels).double().mean())

    weights = encoder.class_weights(names)
    plain = score(features @ weights.T)
    found = {cell.head: cell.accuracies["other"] for cell in result.cells}
    assert found["zero_shot"] == found["tip_adapter"] == pytest.approx(plain)
    learned = load_head(result.folder / "heads" / "coop-K4-seed1")
    assert isinstance(learned, CoOp)
    moved = learned.for_classes(weights, ContextPrompts(encoder, names, context_tokens=2))
    assert found["coop"] == pytest.approx(score(moved.logits(features)))
    assert not torch.allclose(moved.logits(features), learned.config.logit_scale * features @ weights.T)


def test_prompt_heads_and_a_prompt_stage_run_on_clip(values: dict[str, Any]) -> None:
    coop = {"method": "coop", "context_tokens": 2, "epochs": 2}
    heads = [coop, {"method": "cocoop", "context_tokens": 2, "epochs": 1}]
    heads += [{"method": "xmadapter", "epochs": 1, "search_steps": [3, 3]}]
    result = execute_few_shot(few_shot_recipe(values, heads=heads, shots=[1], seeds=[1], prompt_stage=coop))
    trained = {cell.head: cell.trainable for cell in result.cells}
    assert trained["coop"] == 2 * 16
    xm = load_head(result.folder / "heads" / "xmadapter-K1-seed1")
    prompted = load_head(result.folder / "heads" / "coop-K1-seed1")
    assert torch.equal(xm.prompt_weights, prompted.prompted)
    assert not torch.equal(xm.prompt_weights, xm.class_weights)


def test_the_command_runs_plans_and_tracks(
    values: dict[str, Any], store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml
    from mlflow.tracking import MlflowClient

    values |= {"shots": [1], "seeds": [1], "tracking": {"store": str(store)}, "heads": values["heads"][:2]}
    path = tmp_path / "colours.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(SystemExit) as stop:
        main(["plan", str(path)])
    assert not stop.value.code
    assert "tip_adapter: K=1: 0" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["train", str(path), "seeds=[1, 2]"])
    assert not stop.value.code
    shown = capsys.readouterr().out
    assert "accuracy on test, per cent" in shown
    with pytest.raises(SystemExit) as stop:
        main(["train", str(path), "--resume"])
    assert stop.value.code == 2
    assert "this few-shot recipe has none" in capsys.readouterr().err
    from weft.eval.tracking.store import store_uri

    client = MlflowClient(store_uri(store))
    experiment = client.get_experiment_by_name("weft")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["heads"] == "zero_shot,tip_adapter"
    assert {"test/tip_adapter/mean", "test/tip_adapter/std", "test/zero_shot/seed 2"} <= set(run.data.metrics)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {"accuracy.png", "table.txt"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shotz": [1]}, "shotz: unknown key. Did you mean 'shots'"),
        ({"shots": [0]}, "shots: give at least one number from 1 on, each once, not \\[0\\]"),
        ({"heads": [{"method": "tip_adaptor"}]}, "heads: `method` must be .* Did you mean 'tip_adapter'"),
        ({"heads": [{"method": "gda"}] * 2}, "heads: heads must have different labels, but gda"),
        ({"prompt_stage": {"method": "gda"}}, "prompt_stage: the prompt stage is a head of method coop"),
        (
            {"also": {"b": {"data": {"name": "x"}}}, "shifted": {"a": {"name": "x"}}},
            "further test sets .* belong to one data set; take `also` out",
        ),
        ({"protocol": "base_to_new", "shifted": {"a": {"name": "x"}}}, "base_to_new has its own test sets"),
        ({"transfer": {"test": {"name": "x"}}}, "must name different test sets, none of them 'test'"),
        ({"also": {"b": {"data": {"name": "x"}, "heads": []}}}, "also.b.heads: unknown key"),
        ({"encoder": {"nam": "x"}}, "encoder.nam: unknown key. Did you mean 'name'"),
    ],
)
def test_faults_of_a_recipe_are_named(values: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_any({**values, **changes})


def test_data_and_encoders_that_do_not_fit_are_refused(values: dict[str, Any], tmp_path: Path) -> None:
    data = values["data"]
    with pytest.raises(RunError, match=r"`data.num_classes` must be that of 'image_folder' \(4\), but is 5"):
        execute_few_shot(few_shot_recipe(values, data={**data, "num_classes": 5}))
    with pytest.raises(RunError, match=r"`data.class_names` must rename classes .* 'pink' is none"):
        execute_few_shot(few_shot_recipe(values, data={**data, "class_names": {"pink": "rose"}}))
    more = tmp_path / "more"
    shutil.copytree(data["root"], more)
    shutil.copytree(more / "test" / "teal", more / "test" / "pink")
    with pytest.raises(
        RunError, match=r"The split 'train' .* every class, but has none of 'pink' \(label 3\)"
    ):
        execute_few_shot(few_shot_recipe(values, data={**data, "root": str(more)}))
    with pytest.raises(RunError, match=r"`encoder.name` must be a folder or a hub id"):
        execute_few_shot(few_shot_recipe(values, encoder={"name": str(tmp_path / "none")}))
    with pytest.raises(RunError, match=r"`encoder.width` must be that of .* \(16\), but is 512"):
        execute_few_shot(few_shot_recipe(values, encoder={**values["encoder"], "width": 512}))
    names = {"navy": "olive"}
    with pytest.raises(FewShotError, match="`class_names` must differ"):
        execute_few_shot(few_shot_recipe(values, name="twice", data={**data, "class_names": names}))
    with pytest.raises(RunError, match="`weft plan` needs the number of classes"):
        plan_few_shot(few_shot_recipe(values, encoder={"name": "x"}))


@pytest.mark.parametrize(
    "name", [name for name in built_in_recipes() if name.startswith(("xmadapter/", "tip_"))]
)
def test_shipped_recipes_plan_without_data_or_weights(name: str) -> None:
    loaded = load_any(name)
    assert loaded is not None
    plan = plan_few_shot(loaded)
    assert plan.trainable["tip_adapter_f"][16] == plan.num_classes * 16 * 512
    assert plan.trainable["tip_adapter"][16] == 0


def test_a_cache_of_real_photos_holds_what_was_drawn(realdata: Path, values: dict[str, Any]) -> None:
    root = realdata / "alexeygrigorev+clothing-dataset-small" / "images_short80.zip"
    loaded = load_any(
        "few_shot/clothing",
        [
            f"data.root={root}",
            f"encoder.name={values['encoder']['name']}",
            "encoder.width=16",
            f"output={values['output']}",
            "tracking.enabled=false",
            "shots=[2]",
            "seeds=[1]",
            "selection=none",
            "views={count: 1, augment: false}",
            "heads=[{method: tip_adapter}]",
        ],
    )
    assert loaded is not None
    result = execute_few_shot(loaded)
    records = load_records(loaded)
    train, _ = draw(records, 2, 1)
    encoder, transform = load_encoder(loaded.encoder)
    extractor = Extractor(encoder, transform, Path(values["output"]) / "fresh", 64, Progress())
    head = load_head(result.folder / "heads" / "tip_adapter-K2-seed1")
    torch.testing.assert_close(head.cache.keys, extractor.plain(train, "photos")[head.cache.origin])
    assert head.cache.labels.tolist() == [train[int(place)].label for place in head.cache.origin]
    assert head.cache.counts().tolist() == [2] * 10
    assert len(records.test["test"]) == 372


def test_values_at_the_end_of_a_grid_are_said_under_the_table(values: dict[str, Any]) -> None:
    given = {"search_scale": [1, 0.2], "search_steps": [3, 2]}
    heads = [
        {"method": "tip_adapter", "label": "narrow", **given},
        {"method": "tip_adapter", "label": "single", "search_steps": [1, 1]},
    ]
    result = execute_few_shot(few_shot_recipe(values, heads=heads, shots=[4]))
    ends = [cell.at_bounds["alpha"] for cell in result.cells if cell.head == "narrow"]
    assert set(ends) <= {"lowest", "highest"}  # there are no other values
    for end in set(ends):
        said = f"narrow: alpha is the {end} value compared in {ends.count(end)} of 2 fits"
        assert said in (result.folder / "table.txt").read_text()
    assert "single:" not in result.text()
    saved = json.loads((result.folder / "result.json").read_text())["cells"]
    assert [cell["at_bounds"] for cell in saved] == [cell.at_bounds for cell in result.cells]
    again = rescore_few_shot(result.folder)
    assert again.cells == result.cells
    assert again.text() == result.text()
