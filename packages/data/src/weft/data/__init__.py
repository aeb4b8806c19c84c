"""Loaders, few-shot protocol, task mixing and feature stores for vision-and-language data.

Importing this package loads neither torch nor any loader; data sets are found when they are asked for.
"""

from weft.data.catalog import (
    DatasetSpec,
    HubSource,
    dataset_spec,
    list_datasets,
    load_dataset,
    register_dataset,
)
from weft.data.errors import (
    CorruptMediaError,
    InvalidArgumentError,
    MalformedRecordError,
    MissingDependencyError,
    MissingFileError,
    StateMismatchError,
    UnknownNameError,
    UnsafePathError,
    WeftDataError,
)
from weft.data.media.reference import MediaRef
from weft.data.records.caption import Caption
from weft.data.records.classify import Classify
from weft.data.records.conversation import Conversation
from weft.data.records.image_qa import ImageQA
from weft.data.records.pair_bool import PairBool
from weft.data.records.record import Record, record_class, register_record_type
from weft.data.records.record_set import RecordSet
from weft.data.records.retrieval import Retrieval
from weft.data.records.video_mc import VideoMC
from weft.data.records.video_qa import VideoQA
from weft.data.sampling.few_shot import FewShotDraw, base_to_new, draw_few_shot, few_shot, restrict_classes
from weft.data.sampling.mixing import TaskMixture
from weft.data.sampling.task_records import TaskRecords
from weft.data.sources.opening import open_store

__all__ = [
    "Caption",
    "Classify",
    "Conversation",
    "CorruptMediaError",
    "DatasetSpec",
    "FewShotDraw",
    "HubSource",
    "ImageQA",
    "InvalidArgumentError",
    "MalformedRecordError",
    "MediaRef",
    "MissingDependencyError",
    "MissingFileError",
    "PairBool",
    "Record",
    "RecordSet",
    "Retrieval",
    "StateMismatchError",
    "TaskMixture",
    "TaskRecords",
    "UnknownNameError",
    "UnsafePathError",
    "VideoMC",
    "VideoQA",
    "WeftDataError",
    "base_to_new",
    "dataset_spec",
    "draw_few_shot",
    "few_shot",
    "list_datasets",
    "load_dataset",
    "open_store",
    "record_class",
    "register_dataset",
    "register_record_type",
    "restrict_classes",
]
