"""The split files of CoOp: `{"train": [["path.jpg", 3, "class name"], ...], "val": [...], "test": [...]}`."""

from collections.abc import Iterator, Sequence
from typing import Any

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.records.classify import Classify
from weft.data.records.rows import Row
from weft.data.records.source import MediaFiles, Source

SPLITS = ("train", "val", "test")
LAYOUTS: dict[str, tuple[str, str]] = {}
"""Data set to the name of its split file and the folder that the paths of the file usually start from."""

_SPLITS_DIFFER = "its splits are not those of the split file"
_HOW_TO_GET_SPLIT = (
    "The split file {file} is linked in CoOp's DATASETS.md (https://github.com/KaiyangZhou/CoOp); published few-shot "
    "numbers hold for it alone, splits of hub copies differ."
)


def coop_set(
    name: str,
    *,
    split_file: str,
    image_folders: Sequence[str],
    how_to_get: str,
    hub_copy: str = "",
    **facts: Any,
) -> DatasetSpec:
    """Return a data set that CoOp's split file divides: one `Classify` per row of it, in its order.

    Args:
        name: Name of the data set.
        split_file: Official name, such as `split_zhou_Food101.json`.
        image_folders: Folders that the paths of the file may start from, "" for the root.
        how_to_get: Where the images come from.
        hub_copy: A copy on the hub, whose splits are other ones.
        **facts: What else a `DatasetSpec` says.
    """
    LAYOUTS[name] = (split_file, image_folders[0])

    def read(source: Source, split: str) -> Iterator[Classify]:
        file = source.find(split_file)
        top = Row(file.json(), file.name, "top")
        rows = [Row(value, file.name, f"{split}[{number}]") for number, value in enumerate(top.items(split))]
        images = MediaFiles(source, image_folders, _archives(image_folders))

        def make(row: Row) -> Classify:
            path, label = row.text(0), row.integer(1)
            if label < 0:
                row.fail(f"the label must not be negative, but is {label}")
            return Classify(id=path, image=images.ref(path), label=label, class_name=row.text(2))

        yield from source.build(rows, make)

    return DatasetSpec(
        name=name,
        record_type="classify",
        splits=SPLITS,
        read=read,
        how_to_get=f"{how_to_get} {_HOW_TO_GET_SPLIT.format(file=split_file)}",
        hub=(HubSource(repo=hub_copy, note=_SPLITS_DIFFER),) if hub_copy else (),
        **facts,
    )


def _archives(folders: Sequence[str]) -> list[str]:
    return [
        f"{folder}{ending}" for folder in folders if folder for ending in (".zip", ".tar", ".tar.gz", ".tgz")
    ]
