"""Experiment tracking: one thin layer over MLflow, used by training and evaluation.

Importing this does not import MLflow; opening a run does. Everything a run logs goes to a local spool first
and from there to the store, so a dead server neither stops nor slows the work.
"""

from weft.eval.tracking.run import Run, open_run
from weft.eval.tracking.sender import sync
from weft.eval.tracking.store import check_store, runs_page, store_uri, ui_command

__all__ = ["Run", "check_store", "open_run", "runs_page", "store_uri", "sync", "ui_command"]
