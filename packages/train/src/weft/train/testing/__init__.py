"""What tests of recipes share: the official layouts in miniature, as stored below `$WEFT_DATA`."""

from weft.train.testing.few_shot_sets import write_few_shot_sets
from weft.train.testing.retrieval import write_retrieval_tasks
from weft.train.testing.stored_features import grid_features, write_image_tasks, write_video_tasks

__all__ = [
    "grid_features",
    "write_few_shot_sets",
    "write_image_tasks",
    "write_retrieval_tasks",
    "write_video_tasks",
]
