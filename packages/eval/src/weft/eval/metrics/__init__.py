"""Official metrics as pure functions of `id -> prediction` and `id -> reference`.

Importing this loads numpy and nothing heavier.
"""

from weft.eval.metrics.caption import caption_scores
from weft.eval.metrics.classify import top1_accuracy
from weft.eval.metrics.gqa import gqa_accuracy
from weft.eval.metrics.nlvr import nlvr2_accuracy, nlvr_accuracy
from weft.eval.metrics.report import GroupScore, ScoreReport
from weft.eval.metrics.retrieval import retrieval_from_features, retrieval_recall
from weft.eval.metrics.state import MetricState
from weft.eval.metrics.vqa import vqa_accuracy

__all__ = [
    "GroupScore",
    "MetricState",
    "ScoreReport",
    "caption_scores",
    "gqa_accuracy",
    "nlvr2_accuracy",
    "nlvr_accuracy",
    "retrieval_from_features",
    "retrieval_recall",
    "top1_accuracy",
    "vqa_accuracy",
]
