from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from weft.eval.errors import TrackingError
from weft.eval.serving import log_model, save_model
from weft.eval.tracking import open_run, store_uri
from weft.eval.tracking.sender import Sender
from weft.eval.tracking.spool import Spool
from weft.eval.tracking.store import client

_LOADER = """
from pathlib import Path

def load(adapter, greeting):
    word = Path(adapter, "adapter.txt").read_text()
    def predict(task, questions, images):
        sizes = ["+".join(str(len(image)) for image in row) for row in images]
        return [f"{greeting} {word} {task} {q} {s}" for q, s in zip(questions, sizes, strict=True)]
    return predict
"""


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "made_up_loader.py").write_text(_LOADER, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "made_up_loader", raising=False)
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter.txt").write_text("adapter", encoding="utf-8")
    return folder


def ask(model: str, params: dict[str, str] | None = None, **columns: list[bytes]) -> Any:
    with warnings.catch_warnings():
        # MLflow and pandas warn about themselves here.
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        import pandas

        rows = pandas.DataFrame({"question": ["a", "b"], "image": [b"12", b"345"], **columns})
        return mlflow.pyfunc.load_model(model).predict(rows, params)


def test_a_saved_model_loads_and_answers(adapter: Path, tmp_path: Path) -> None:
    model = save_model(
        tmp_path / "model",
        adapter=adapter,
        loader="made_up_loader:load",
        tasks=["vqa", "nlvr"],
        options={"greeting": "hi"},
    )
    assert ask(str(model)) == ["hi adapter vqa a 2", "hi adapter vqa b 3"]
    assert ask(str(model), {"task": "nlvr"}, second_image=[b"1", b""])[0] == "hi adapter nlvr a 2+1"
    with pytest.raises(ValueError, match="`task` must be one of vqa, nlvr, but is 'gqa'"):
        ask(str(model), {"task": "gqa"})
    assert "weft-eval==" in (model / "requirements.txt").read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in model.rglob("*") if path.is_file()) < 20_000


def test_what_a_run_made_is_a_logged_model_with_its_scores_and_data(adapter: Path, store: Path) -> None:
    linked = {
        "params": {"method": {"rank": 4}},
        "metrics": {"test/vqa": 61.0, "test/vqa/number": 0.5, "test/average": 60.0},
        "datasets": {"test/vqa": ("vqa/test", "d" * 64)},
        "register": "pictures",
    }
    with open_run(store, "e", "r") as run:
        run.log_dataset("vqa/test", "d" * 64, "test", source={"data": "vqav2"}, profile={"records": 7})
        log_model(
            run,
            adapter=adapter,
            loader="made_up_loader:load",
            tasks=["vqa"],
            options={"greeting": "ho"},
            linked=linked,
        )
        assert run.flush()
        again = Sender(Spool(run.spool), run.uri)
        run.spool.joinpath("sent.json").unlink()
        assert again.drain()  # as after a crash: the whole spool once more
        assert not list(run.spool.glob("rejected*"))
    mlflow = client(store_uri(store))
    experiment = mlflow.get_experiment_by_name("e")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    (model,) = mlflow.search_logged_models([experiment.experiment_id], "params.`method.rank` = '4'")
    assert (model.name, model.source_run_id, str(model.status)) == ("model", run.run_id, "READY")
    told = {metric.key: (metric.value, metric.dataset_name) for metric in model.metrics}
    assert told == {
        "test/vqa": (61.0, "vqa/test"),
        "test/vqa/number": (0.5, "vqa/test"),
        "test/average": (60.0, None),
    }
    kept = mlflow.get_run(run.run_id)
    assert kept.data.metrics == linked["metrics"]
    ((made,),) = ([each.model_id for each in kept.outputs.model_outputs],)
    assert made == model.model_id
    ((data,),) = (kept.inputs.dataset_inputs,)
    assert (data.dataset.name, data.dataset.digest, data.tags[0].value) == ("vqa/test", "d" * 36, "test")
    assert json.loads(data.dataset.profile) == {"records": 7}
    import mlflow as whole

    whole.set_tracking_uri(store_uri(store))
    (version,) = mlflow.search_model_versions("name = 'pictures'")
    assert (int(version.version), version.run_id) == (1, run.run_id)
    assert version.source == model.artifact_location
    for address in (f"models:/{model.model_id}", f"runs:/{run.run_id}/model", "models:/pictures/1"):
        assert ask(address)[0] == "ho adapter vqa a 2"


def test_a_model_of_no_folder_is_refused(tmp_path: Path, store: Path) -> None:
    with open_run(store, "e", "r") as run, pytest.raises(TrackingError, match="`source` must exist, but"):
        run.log_model(tmp_path / "nowhere")


def test_the_backbone_is_loaded_once_and_only_when_asked(adapter: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from weft.eval.serving.model_code import AdaptedModel

    model = AdaptedModel()
    config = {"loader": "made_up_loader:load", "tasks": ["vqa"], "options": {"greeting": "hi"}}
    context = SimpleNamespace(model_config=config, artifacts={"adapter": str(adapter)})
    model.load_context(context)
    assert "made_up_loader" not in sys.modules
    rows = {"question": ["a"], "image": [b"12"]}
    first = model.predict(context, rows)
    (adapter / "adapter.txt").unlink()
    assert model.predict(context, rows) == first == ["hi adapter vqa a 2"]
    context.model_config["loader"] = "not_installed:load"
    model.load_context(context)
    with pytest.raises(RuntimeError, match="loaded by 'not_installed:load', but that cannot be imported"):
        model.predict(context, rows)


def test_a_loader_that_is_not_installed_is_named(adapter: Path, tmp_path: Path) -> None:
    model = save_model(
        tmp_path / "model", adapter=adapter, loader="not_installed:load", tasks=["t"], pip_requirements=["x"]
    )
    with pytest.raises(Exception, match="loaded by 'not_installed:load', but that cannot be imported"):
        ask(str(model))
    assert "not_installed" not in sys.modules


def test_what_cannot_become_a_model_is_refused(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"`loader` must read package\.module:function, but is 'load'"):
        save_model(tmp_path / "m", adapter=adapter, loader="load", tasks=["t"])
    with pytest.raises(TrackingError, match="`tasks` must name at least one task"):
        save_model(tmp_path / "m", adapter=adapter, loader="a:b", tasks=[])
    with pytest.raises(TrackingError, match="`adapter` must be a folder"):
        save_model(tmp_path / "m", adapter=tmp_path / "none", loader="a:b", tasks=["t"])
    with pytest.raises(TrackingError, match="`folder` must not exist yet"):
        save_model(adapter, adapter=adapter, loader="a:b", tasks=["t"])
