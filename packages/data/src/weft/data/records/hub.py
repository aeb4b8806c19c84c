"""Data sets of the Hugging Face hub, through `datasets`, with the records of `weft.data`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from unicodedata import normalize

from weft.data.errors import InvalidArgumentError, require_known
from weft.data.records.columns import RowMapping, mapping_of
from weft.data.records.on_demand import RecordsOnDemand
from weft.data.records.record import Record
from weft.data.records.record_set import RecordSet
from weft.data.records.rows import Row, read_kept
from weft.data.records.source import MediaFolder

_SPLITS, _STATE = "dataset_dict.json", "state.json"


class HubRecords(RecordsOnDemand):
    """Rows of a `datasets.Dataset` as records, made on demand; images stay encoded until asked for.

    `datasets` must not decode the images; it may give rows as tables of Arrow. Messages call the data by the label.
    """

    def __init__(self, rows: Any, mapping: RowMapping, label: str) -> None:
        self._rows, self._mapping, self._label = rows, mapping, label

    def __len__(self) -> int:
        return len(self._rows)

    def record(self, index: int) -> Record:
        """Return the record of a row."""
        value = self._rows[index]
        row = Row(value if isinstance(value, Mapping) else value.to_pylist()[0], self._label, index)
        return self._mapping.record(row, str(index))


def load_hub_dataset(
    repo: str,
    split: str,
    *,
    record: str,
    columns: Mapping[str, str | Sequence[str]],
    revision: str | None = None,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    media: MediaFolder | None = None,
    **options: Any,
) -> RecordSet[Any]:
    """Load a split of a hub data set by configuration: repository, revision and columns.

    Args:
        repo: Repository id, or the name of a builder such as "parquet" with `data_files=`.
        split: Split name there.
        record: Type of the records, such as "image_qa".
        columns: Record field, or part of a conversation, to column name.
        revision: Commit or tag. Data sets of the hub move, so it must be given for a repository; a local folder has
            none.
        name: Configuration of the repository.
        classes: Class names in label order, for classification; by default those of the label column.
        media: Folder that paths of images start from, where rows hold paths.
        **options: Further arguments of `datasets.load_dataset`, such as `data_files` or `storage_options`.

    Raises:
        InvalidArgumentError: If a repository has no revision.
        UnknownNameError: For an unknown record type or field.
    """
    local = Path(repo).is_dir()
    if "/" in repo and revision is None and not local:
        raise InvalidArgumentError(
            f"`revision` must be given for {repo!r}, but is None. Pin the commit shown on its page, so that the data "
            "cannot change under a recipe."
        )
    mapping_of(record, columns)
    import datasets

    if local and is_saved(Path(repo)):
        rows = _saved(Path(repo), split)
    else:
        rows = datasets.load_dataset(repo, name, split=split, revision=None if local else revision, **options)
    for column, feature in (rows.features or {}).items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
        elif isinstance(feature, datasets.ClassLabel) and classes is None:
            classes = list(feature.names)
    if any(map(_shows, (rows.features or {}).values())):
        # Images inside of lists would be decoded row by row; as Arrow keeps them, they are encoded.
        rows = rows.with_format("arrow")
    labels = {normalize("NFC", each): label for label, each in enumerate(classes or ())}
    label = f"{repo}@{revision}" if revision else repo
    records = HubRecords(rows, mapping_of(record, columns, media, labels), label)
    return RecordSet(repo, split, record, records)


def hub_records(repo: str | None, split: str, media: MediaFolder, **options: Any) -> Sequence[Record]:
    """The records of a repository, or else of the local folder of media; options as for `load_hub_dataset`."""
    if repo:
        return load_hub_dataset(repo, split, **options).records
    return load_hub_dataset(str(cast("Any", media.store).url), split, media=media, **options).records


def _shows(feature: Any) -> bool:
    """Whether there are images that would be decoded within a feature."""
    import datasets

    if isinstance(feature, datasets.Image):
        return bool(feature.decode)
    inner = feature.values() if isinstance(feature, dict) else [getattr(feature, "feature", None)]
    return any(_shows(each) for each in inner if each is not None)


def is_saved(folder: Path) -> bool:
    """Tell whether `save_to_disk` of `datasets` wrote a folder: one split, or a folder for each."""
    return any((folder / name).is_file() for name in (_SPLITS, _STATE))


def saved_splits(folder: Path) -> list[str]:
    """The splits of a folder that `save_to_disk` wrote, in its order; none where it is another."""
    if (folder / _SPLITS).is_file():
        return [str(name) for name in read_kept(folder / _SPLITS).items("splits")]
    if (folder / _STATE).is_file():
        return [read_kept(folder / _STATE).text("_split", "train")]
    return []


def _saved(folder: Path, split: str) -> Any:
    import datasets

    require_known(f"split of {folder}", saved_splits(folder), split)
    return datasets.load_from_disk(str(folder / split if (folder / _SPLITS).is_file() else folder))
