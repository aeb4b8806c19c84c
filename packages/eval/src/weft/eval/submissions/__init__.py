"""Prediction files as each benchmark's server takes them, read, written and scored."""

from weft.eval.submissions.format import Submission, get_submission, list_submissions, save_submission
from weft.eval.submissions.score import score_predictions

__all__ = ["Submission", "get_submission", "list_submissions", "save_submission", "score_predictions"]
