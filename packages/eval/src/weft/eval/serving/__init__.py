"""An adapted model as an MLflow `pyfunc` model that holds the adapter only."""

from weft.eval.serving.model import log_model, save_model

__all__ = ["log_model", "save_model"]
