"""The COCO caption evaluation: tokeniser, BLEU, ROUGE-L and CIDEr-D; METEOR through the user's Java."""

from weft.eval.metrics.caption.intervals import caption_intervals
from weft.eval.metrics.caption.scores import caption_scores
from weft.eval.metrics.caption.tokenizer import tokenize

__all__ = ["caption_intervals", "caption_scores", "tokenize"]
