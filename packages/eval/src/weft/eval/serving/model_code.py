"""The code that MLflow runs to load and ask a model; it is copied into every saved model."""

import importlib
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel


class AdaptedModel(PythonModel):
    """Loads the backbone and the adapter when it is asked for the first time."""

    def load_context(self, context: Any) -> None:
        """Remember where the adapter lies; the backbone is fetched later, so loading needs no network."""
        self._context = context
        self._predictor: Any = None

    # Without annotations: MLflow would take them for the schema, which the signature states already.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Answer rows of `question` and `image`."""
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
        return self._predictor(list(model_input["question"]), list(model_input["image"]))


mlflow.models.set_model(AdaptedModel())
