"""Models that this project composes from backbones of `transformers`."""

from weft.core.composites.dual_encoder import DualEncoder, DualEncoderConfig
from weft.core.composites.visual_seq2seq import VisualSeq2Seq, VisualSeq2SeqConfig

__all__ = ["DualEncoder", "DualEncoderConfig", "VisualSeq2Seq", "VisualSeq2SeqConfig"]
