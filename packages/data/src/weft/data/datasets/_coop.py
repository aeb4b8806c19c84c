"""The split files of CoOp: `{"train": [["path.jpg", 3, "class name"], ...], "val": [...], "test": [...]}`."""

from collections.abc import Iterator, Sequence

from weft.data.records.classify import Classify
from weft.data.records.record import Record
from weft.data.records.rows import Row
from weft.data.records.source import MediaFolder, Source

SPLITS = ("train", "val", "test")
HOW_TO_GET_SPLIT = (
    "The split file {file} is linked in CoOp's DATASETS.md (https://github.com/KaiyangZhou/CoOp); "
    "published few-shot "
    "numbers hold for it alone, splits of hub copies differ."
)


def read_coop(
    source: Source, split: str, *, split_file: str, image_folders: Sequence[str]
) -> Iterator[Record]:
    """Yield one `Classify` per row of a split file, in file order.

    Args:
        source: Where the files lie.
        split: "train", "val" or "test".
        split_file: Official name, such as `split_zhou_Food101.json`.
        image_folders: Folders that the paths of the file may start from, "" for the root.
    """
    file = source.find(split_file)
    top = Row(file.json(), file.name, "top")
    rows = [Row(value, file.name, f"{split}[{number}]") for number, value in enumerate(top.items(split))]
    images: MediaFolder | None = None

    def make(row: Row) -> Classify:
        nonlocal images
        path, label = row.text(0), row.integer(1)
        if label < 0:
            row.fail(f"the label must not be negative, but is {label}")
        if images is None:
            images = source.media(image_folders, archives=_archives(image_folders), probe=path)
        return Classify(id=path, image=images.ref(path), label=label, class_name=row.text(2))

    yield from source.build(rows, make)


def _archives(folders: Sequence[str]) -> list[str]:
    return [
        f"{folder}{ending}" for folder in folders if folder for ending in (".zip", ".tar", ".tar.gz", ".tgz")
    ]
