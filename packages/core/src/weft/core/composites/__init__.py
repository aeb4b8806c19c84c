"""Models that this project composes from backbones of `transformers`."""

from weft.core.composites.blip_answering import BlipAnswering, BlipAnsweringConfig
from weft.core.composites.blip_captioning import BlipCaptioning, BlipCaptioningConfig
from weft.core.composites.blip_checkpoint import convert_blip, load_blip
from weft.core.composites.blip_retrieval import BlipRetrieval, BlipRetrievalConfig
from weft.core.composites.dual_encoder import DualEncoder, DualEncoderConfig
from weft.core.composites.efficientnet_lite import load_efficientnet_lite
from weft.core.composites.image_classifier import ImageClassifier, ImageClassifierConfig
from weft.core.composites.visual_seq2seq import VisualSeq2Seq, VisualSeq2SeqConfig

__all__ = [
    "BlipAnswering",
    "BlipAnsweringConfig",
    "BlipCaptioning",
    "BlipCaptioningConfig",
    "BlipRetrieval",
    "BlipRetrievalConfig",
    "DualEncoder",
    "DualEncoderConfig",
    "ImageClassifier",
    "ImageClassifierConfig",
    "VisualSeq2Seq",
    "VisualSeq2SeqConfig",
    "convert_blip",
    "load_blip",
    "load_efficientnet_lite",
]
