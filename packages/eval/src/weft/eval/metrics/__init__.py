"""Official metrics as pure functions of `id -> prediction` and `id -> reference`.

Importing this loads numpy and nothing heavier.
"""

from weft.eval.metrics.anls import anls
from weft.eval.metrics.calibration import calibration
from weft.eval.metrics.caption import caption_scores
from weft.eval.metrics.classify import top1_accuracy
from weft.eval.metrics.exact import exact_accuracy
from weft.eval.metrics.few_shot import harmonic_mean, over_seeds
from weft.eval.metrics.gqa import gqa_accuracy
from weft.eval.metrics.localisation import didemo_localisation
from weft.eval.metrics.nlvr import nlvr2_accuracy, nlvr_accuracy
from weft.eval.metrics.relaxed import relaxed_accuracy
from weft.eval.metrics.report import GroupScore, ScoreReport
from weft.eval.metrics.retrieval import retrieval_from_features, retrieval_recall
from weft.eval.metrics.significance import bootstrap_interval, paired_test
from weft.eval.metrics.state import MetricState
from weft.eval.metrics.video_qa import multiple_choice_accuracy, open_ended_accuracy
from weft.eval.metrics.vqa import vl_adapter_vqa_accuracy, vqa_accuracy

__all__ = [
    "GroupScore",
    "MetricState",
    "ScoreReport",
    "anls",
    "bootstrap_interval",
    "calibration",
    "caption_scores",
    "didemo_localisation",
    "exact_accuracy",
    "gqa_accuracy",
    "harmonic_mean",
    "multiple_choice_accuracy",
    "nlvr2_accuracy",
    "nlvr_accuracy",
    "open_ended_accuracy",
    "over_seeds",
    "paired_test",
    "relaxed_accuracy",
    "retrieval_from_features",
    "retrieval_recall",
    "top1_accuracy",
    "vl_adapter_vqa_accuracy",
    "vqa_accuracy",
]
