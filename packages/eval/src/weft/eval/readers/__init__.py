"""Readers: how one way of building a vision-and-language model reads rows and answers them.

Everything that trains or asks a model speaks to a `Reader`. The model's own processor knows its tokens, its pictures
and its template; a reader knows where the answer goes.
"""

from weft.eval.readers.abilities import ABILITIES, Ability
from weft.eval.readers.auto import is_paired, model_class_for, reader_for
from weft.eval.readers.batch import Batch, Losses
from weft.eval.readers.errors import MissingProcessorError, ReaderError
from weft.eval.readers.limits import Limits
from weft.eval.readers.paired import PairedProcessor
from weft.eval.readers.picture_features import PictureFeatures
from weft.eval.readers.processor import load_processor
from weft.eval.readers.reader import Reader
from weft.eval.readers.registry import reader, readers, register_reader
from weft.eval.readers.rows import Row, Turn, ask
from weft.eval.readers.wording import Wording
from weft.eval.readers.writing import Writing

__all__ = [
    "ABILITIES",
    "Ability",
    "Batch",
    "Limits",
    "Losses",
    "MissingProcessorError",
    "PairedProcessor",
    "PictureFeatures",
    "Reader",
    "ReaderError",
    "Row",
    "Turn",
    "Wording",
    "Writing",
    "ask",
    "is_paired",
    "load_processor",
    "model_class_for",
    "reader",
    "reader_for",
    "readers",
    "register_reader",
]
