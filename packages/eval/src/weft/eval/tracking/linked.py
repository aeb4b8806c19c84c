"""What MLflow links to a run: the data sets that it read, and the model that it made, with the scores of both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft.data.sources.credentials import without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

LONGEST_DIGEST = 36
"""Characters of a digest that MLflow keeps."""


def send_dataset(client: MlflowClient, run_id: str, event: Mapping[str, Any]) -> None:
    """Link the data set of an event of kind `dataset` to a run; it may be repeated."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=event["name"],
        digest=event["digest"],
        source_type="weft",
        source=without_secrets(json.dumps(event["source"])),
        profile=json.dumps(event["profile"]),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", event["split"])])])


def send_model(client: MlflowClient, run_id: str, event: Mapping[str, Any], folder: Path) -> None:
    """Keep the model of an event of kind `model`, its files and metrics, as what a run made; it may be repeated."""
    from mlflow.entities import LoggedModelOutput, Metric

    run = client.get_run(run_id)
    experiment = run.info.experiment_id
    name = str(event["name"])
    of_run = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'")
    model_id = next((model.model_id for model in of_run if model.name == name), None)
    if model_id is None:
        made = client.create_logged_model(
            experiment, name=name, source_run_id=run_id, params=dict(event["params"]), model_type="weft"
        )
        model_id = made.model_id
    client.log_model_artifacts(model_id, str(folder))
    outputs = run.outputs.model_outputs if run.outputs is not None else []
    if all(output.model_id != model_id for output in outputs):  # a store refuses to link it twice
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    metrics = [
        Metric(key, value, event["time"], 0, model_id, *_dataset_of(key, event["datasets"]))
        for key, value in event["values"].items()
    ]
    if metrics:
        client.log_batch(run_id, metrics=metrics)
    client.finalize_logged_model(model_id, "READY")
    if event["register"]:
        _register(client, event["register"], run_id, model_id)


def _register(client: MlflowClient, name: str, run_id: str, model_id: str) -> None:
    """Make a model a version of a registered one, once."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = client.get_logged_model(model_id).artifact_location
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    if all((version.name, version.source) != (name, source) for version in versions):
        client.create_model_version(name, source, run_id=run_id, model_id=model_id)


def _dataset_of(key: str, datasets: Mapping[str, Mapping[str, str]]) -> tuple[str | None, str | None]:
    """Name and digest of the data set that a metric was computed on; none for metrics of the whole run."""
    for prefix, dataset in datasets.items():
        if key == prefix or key.startswith(f"{prefix}/"):
            return dataset["name"], dataset["digest"]
    return None, None
