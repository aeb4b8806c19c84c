"""Saving an adapter so that MLflow can load and serve it."""

from __future__ import annotations

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
    options: Mapping[str, Any] | None = None,
    pip_requirements: Sequence[str] | None = None,
) -> Path:
    """Write an MLflow model: the adapter, the way to load it, and a signature; never the backbone.

    The model answers rows of `question` (text) and `image` (encoded bytes) with one text each.

    Args:
        folder: A folder that does not exist yet.
        adapter: Folder of the adapter's checkpoint (or of a whole run).
        loader: `"package.module:function"`. It is called as `function(adapter_folder, **options)` when the
            model is first asked, and returns a function of `(questions, images)`, two lists of equal length,
            to a list of answers.
        options: Further JSON-able arguments of the loader, such as the name of the backbone and the task.
        pip_requirements: What MLflow installs where it serves the model; by default the weft packages that
            are installed here, in their versions.

    Returns:
        The folder.

    Raises:
        TrackingError: `loader` is not of that form, the adapter is absent, or the folder exists already.
    """
    module, _, function = loader.partition(":")
    if not module or not function:
        raise TrackingError(
            f"`loader` must read package.module:function, but is {loader!r}. Name a function that can be imported."
        )
    if not Path(adapter).is_dir():
        raise TrackingError(
            f"`adapter` must be a folder, but {str(adapter)!r} is none. Save the adapter first."
        )
    if Path(folder).exists():
        raise TrackingError(f"`folder` must not exist yet, but {str(folder)!r} does. Choose another.")
    # Telemetry is switched off and the database's warnings are kept quiet there, once for all uses of MLflow.
    client(store_uri("http://unused"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, Schema

        mlflow.pyfunc.save_model(
            path=str(folder),
            python_model=str(_CODE),
            artifacts={"adapter": str(Path(adapter).absolute())},
            model_config={"loader": loader, "options": dict(options or {})},
            signature=ModelSignature(
                inputs=Schema([ColSpec("string", "question"), ColSpec("binary", "image")]),
                outputs=Schema([ColSpec("string", "answer")]),
            ),
            pip_requirements=list(pip_requirements or _installed()),
        )
    return Path(folder)


def log_model(run: Run, *, adapter: Path | str, loader: str, name: str = "model", **arguments: Any) -> None:
    """Save a model and keep it among the artifacts of a run, under `name`.

    Load it with `mlflow.pyfunc.load_model("runs:/RUN_ID/model")` or from the artifact's folder.

    Args:
        run: An open run.
        adapter: Folder of the adapter's checkpoint.
        loader: See `save_model`.
        name: Folder inside the run's artifacts.
        **arguments: `options` and `pip_requirements` of `save_model`.

    Raises:
        TrackingError: See `save_model`.
    """
    with tempfile.TemporaryDirectory() as folder:
        model = save_model(Path(folder) / "model", adapter=adapter, loader=loader, **arguments)
        run.log_artifacts(model, name)


def _installed() -> list[str]:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            # A model that is made without training code is served without it.
            continue
    return found
