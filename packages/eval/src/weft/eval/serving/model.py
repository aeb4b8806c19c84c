"""Saving an adapter so that MLflow can load and serve it."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from weft.eval.errors import TrackingError
from weft.eval.tracking.run import Run
from weft.eval.tracking.store import client, store_uri

_CODE = Path(__file__).with_name("model_code.py")
_PACKAGES = ("weft-kernels", "weft-core", "weft-data", "weft-eval", "weft-train")


def save_model(
    folder: Path | str,
    *,
    adapter: Path | str,
    loader: str,
    tasks: Sequence[str],
    options: Mapping[str, Any] | None = None,
    pip_requirements: Sequence[str] | None = None,
) -> Path:
    """Write an MLflow model: the adapter, the way to load it, and a signature; never the backbone.

    The model answers rows of `question` (text), `image` (encoded bytes) and, for statements about two images,
    `second_image`, with one text each; `image_url` and `second_image_url` may stand for them (a data URL, or one of a
    host that `WEFT_IMAGE_HOSTS` names). The parameter `task` chooses the task.

    Args:
        folder: A folder that does not exist yet.
        adapter: Folder of the adapter's checkpoint (or of a whole run).
        loader: `"package.module:function"`. It is called as `function(adapter_folder, **options)` when the
            model is first asked, and returns a function of `(task, questions, images)` to a list of answers:
            the name of a task, and two lists of equal length, of texts and of tuples of encoded images.
        tasks: The tasks it can be asked; the first is asked where none is named.
        options: Further JSON-able arguments of the loader, such as the name of the backbone.
        pip_requirements: What MLflow installs where it serves the model; by default the weft packages that
            are installed here, in their versions.

    Returns:
        The folder.

    Raises:
        TrackingError: `loader` is not of that form, there is no task, the adapter is absent, or the folder
            exists already.
    """
    _check(folder, adapter, loader, tasks)
    # Telemetry is switched off and the database's warnings are kept quiet there, once for all uses of MLflow.
    client(store_uri("http://unused"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc

        mlflow.pyfunc.save_model(
            path=str(folder),
            python_model=str(_CODE),
            artifacts={"adapter": str(Path(adapter).absolute())},
            model_config={"loader": loader, "tasks": list(tasks), "options": dict(options or {})},
            signature=_signature(tasks[0]),
            pip_requirements=list(pip_requirements or _installed()),
        )
    return Path(folder)


def _check(folder: Path | str, adapter: Path | str, loader: str, tasks: Sequence[str]) -> None:
    module, _, function = loader.partition(":")
    if not module or not function:
        raise TrackingError(
            f"`loader` must read package.module:function, but is {loader!r}. Name a function that can be imported."
        )
    if not tasks:
        raise TrackingError("`tasks` must name at least one task, but is empty. Name what the model answers.")
    if not Path(adapter).is_dir():
        raise TrackingError(
            f"`adapter` must be a folder, but {str(adapter)!r} is none. Save the adapter first."
        )
    if Path(folder).exists():
        raise TrackingError(f"`folder` must not exist yet, but {str(folder)!r} does. Choose another.")


def _signature(task: str) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    asked = [
        ColSpec("string", "question"),
        *(ColSpec("binary", name, required=False) for name in ("image", "second_image")),
        *(ColSpec("string", name, required=False) for name in ("image_url", "second_image_url")),
    ]
    answered, chosen = [ColSpec("string", "answer")], [ParamSpec("task", "string", task)]
    return ModelSignature(inputs=Schema(asked), outputs=Schema(answered), params=ParamSchema(chosen))


def log_model(
    run: Run,
    *,
    adapter: Path | str,
    loader: str,
    name: str = "model",
    linked: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> None:
    """Save a model and keep it as what a run made: a `LoggedModel` of MLflow, linked to the run.

    Load it with `mlflow.pyfunc.load_model("runs:/RUN_ID/model")`, or as `models:/MODEL_ID`.

    Args:
        run: An open run.
        adapter: Folder of the adapter's checkpoint.
        loader: See `save_model`.
        name: Name of the model.
        linked: `params`, `metrics`, `datasets` and `register` of `weft.eval.tracking.Run.log_model`.
        **arguments: `tasks`, `options` and `pip_requirements` of `save_model`.

    Raises:
        TrackingError: See `save_model`.
    """
    with tempfile.TemporaryDirectory() as folder:
        model = save_model(Path(folder) / "model", adapter=adapter, loader=loader, **arguments)
        run.log_model(model, name=name, **dict(linked or {}))


def _installed() -> list[str]:
    found = []
    for name in _PACKAGES:
        # A model that is made without training code is served without it.
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name}=={version(name)}")
    return found
