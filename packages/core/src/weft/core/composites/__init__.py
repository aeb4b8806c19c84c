"""Models that this project composes from backbones of `transformers`."""

from weft.core.composites.visual_seq2seq import VisualSeq2Seq, VisualSeq2SeqConfig

__all__ = ["VisualSeq2Seq", "VisualSeq2SeqConfig"]
