"""The code that MLflow runs to load and ask a model; it is copied into every saved model."""

import importlib
from typing import Any

import mlflow
import pandas
from mlflow.pyfunc import PythonModel

_SHOWN = ("image", "image_url", "second_image", "second_image_url")


class AdaptedModel(PythonModel):
    """Loads the backbone and the adapter when it is asked for the first time."""

    def load_context(self, context: Any) -> None:
        """Remember where the adapter is; the backbone is fetched later, so loading needs no network."""
        self._context = context
        self._predictor: Any = None

    # A data frame says nothing of its columns, so MLflow keeps to the schema that the signature states.
    def predict(
        self, context: Any, model_input: pandas.DataFrame, params: dict[str, Any] | None = None
    ) -> list[str]:
        """Answer rows of `question` and images or their addresses, by the task that `params` names."""
        tasks = self._context.model_config["tasks"]
        task = (params or {}).get("task", tasks[0])
        if task not in tasks:
            raise ValueError(
                f"`task` must be one of {', '.join(tasks)}, but is {task!r}. Choose one of these."
            )
        if self._predictor is None:
            loader = self._context.model_config["loader"]
            module, _, function = loader.partition(":")
            try:
                load = getattr(importlib.import_module(module), function)
            except (ImportError, AttributeError) as error:
                raise RuntimeError(
                    f"The model is loaded by {loader!r}, but that cannot be imported: {error}. "
                    "Install the packages named in requirements.txt beside the model."
                ) from error
            options = self._context.model_config["options"]
            self._predictor = load(self._context.artifacts["adapter"], **options)
        names = [name for name in _SHOWN if name in model_input]
        rows = zip(*(model_input[name] for name in names), strict=True)
        images = [_images(dict(zip(names, row, strict=True))) for row in rows] or [
            [] for _ in model_input["question"]
        ]
        answers: list[str] = self._predictor(task, list(model_input["question"]), images)
        return answers


def _images(row: dict[str, Any]) -> list[bytes]:
    """The pictures of a row, those of addresses fetched."""
    from weft.eval.serving.pictures import PictureLimits, hosts_of_environment, picture_of

    shown = []
    for name in ("image", "second_image"):
        data, address = row.get(name), row.get(f"{name}_url")
        if isinstance(address, str) and address:
            data = picture_of(address, PictureLimits(hosts=hosts_of_environment()))
        if name in row or f"{name}_url" in row:
            shown.append(bytes(data) if isinstance(data, bytes | bytearray) else b"")
    return shown


mlflow.models.set_model(AdaptedModel())
