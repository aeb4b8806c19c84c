"""A run in MLflow 3: its parameters, data sets and logged model are found, and `mlflow models serve` answers for it."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from weft.eval.tracking.store import client, store_uri
from weft.train.preflight.tasks import load_tasks
from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import execute


def tracked(values: dict[str, Any], store: Path) -> Any:
    values["tracking"] = {"enabled": True, "experiment": "served", "store": str(store), "register_as": "tiny"}
    return execute(load_recipe(values))


def test_a_run_is_found_by_its_parameters_data_and_model(values: dict[str, Any], store: Path) -> None:
    result = tracked(values, store)
    mlflow = client(store_uri(store))
    experiment = mlflow.get_experiment_by_name("served").experiment_id
    (run,) = mlflow.search_runs([experiment], "params.`method.bottleneck_size` = '4'")
    assert run.data.params["method.sharing"]
    assert run.data.params["backbone"] == "miniature"
    assert run.data.tags["mlflow.user"]
    described = run.data.tags["mlflow.note.content"]
    assert "bottleneck on miniature, for vqa, nlvr" in described
    assert "bottleneck shares: down across nothing; up across nothing" in described
    data = {each.dataset.name: each.tags[0].value for each in run.inputs.dataset_inputs}
    assert data == {f"{task}/{role}": role for task in ("vqa", "nlvr") for role in ("train", "test")}
    (model,) = mlflow.search_logged_models([experiment], f"source_run_id = '{run.info.run_id}'")
    metrics = {metric.key: (metric.value, metric.dataset_name) for metric in model.metrics}
    assert metrics["test/vqa"] == (result.scores["vqa"], "vqa/test")
    assert metrics["test/average"] == (result.scores["average"], None)
    assert model.params["backbone"] == "miniature"
    assert run.outputs.model_outputs[0].model_id == model.model_id
    (version,) = mlflow.search_model_versions("name = 'tiny'")
    assert version.source == model.artifact_location


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


def asked(port: int, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=1)
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server does not answer")


@pytest.mark.slow
def test_mlflow_serves_a_run_over_http(values: dict[str, Any], store: Path, tmp_path: Path) -> None:
    result = tracked(values, store)
    records = list(load_tasks(load_recipe(values), ("test",))["vqa"]["test"])[:4]
    kept = json.loads((result.folder / "predictions" / "vqa.json").read_text())
    pictures = [record.image.read() for record in records]
    for place, picture in enumerate(pictures):
        (tmp_path / f"{place}.png").write_bytes(picture)
    files = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))
    )
    threading.Thread(target=files.serve_forever, daemon=True).start()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = next((store / "artifacts").rglob("MLmodel")).parent
    words = ["-m", "mlflow", "models", "serve", "-m", str(model), "-p", str(port), "-h", "127.0.0.1"]
    process = subprocess.Popen(
        [sys.executable, *words, "--env-manager", "local"],
        env={**os.environ, "WEFT_IMAGE_HOSTS": "127.0.0.1", "no_proxy": "127.0.0.1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(port, process)
        questions = [record.question for record in records]
        rows = [
            {"question": question, "image": base64.b64encode(picture).decode()}
            for question, picture in zip(questions, pictures, strict=True)
        ]
        said = asked(port, {"dataframe_records": rows, "params": {"task": "vqa"}})["predictions"]
        assert said == [kept[record.id] for record in records]
        rows = [
            {"question": question, "image_url": f"http://127.0.0.1:{files.server_port}/{place}.png"}
            for place, question in enumerate(questions)
        ]
        said = asked(port, {"dataframe_records": rows, "params": {"task": "vqa"}})["predictions"]
        assert said == [kept[record.id] for record in records]
        with pytest.raises(urllib.error.HTTPError):
            asked(port, {"dataframe_records": [{"question": "x", "image_url": "http://example.org/a.png"}]})
        assert asked(port, {"dataframe_records": rows[:1]})["predictions"]
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        files.shutdown()
        files.server_close()
