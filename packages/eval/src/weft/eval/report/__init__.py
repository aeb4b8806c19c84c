"""Looking into predictions: tables with pictures, and pages that show where a run goes wrong."""

from weft.eval.report.from_records import record_table
from weft.eval.report.inspection import inspect_html
from weft.eval.report.predictions import PredictionRow, PredictionTable, prediction_table
from weft.eval.report.run_tables import scores_of_runs, tables_in, tables_of_run

__all__ = [
    "PredictionRow",
    "PredictionTable",
    "inspect_html",
    "prediction_table",
    "record_table",
    "scores_of_runs",
    "tables_in",
    "tables_of_run",
]
