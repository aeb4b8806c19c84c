"""Data sets of the Hugging Face hub, through `datasets`, with the records of `weft.data`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.data.errors import InvalidArgumentError
from weft.data.records.columns import ColumnMapping
from weft.data.records.on_demand import RecordsOnDemand
from weft.data.records.record import Record
from weft.data.records.record_set import RecordSet
from weft.data.records.rows import Row


class HubRecords(RecordsOnDemand):
    """Rows of a `datasets.Dataset` as records, made on demand; images stay encoded until asked for.

    Args:
        rows: The data set; image columns must not be decoded by `datasets`.
        mapping: Which column feeds which field.
        label: What messages and ids call the data.
    """

    def __init__(self, rows: Any, mapping: ColumnMapping, label: str) -> None:
        self._rows, self._mapping, self._label = rows, mapping, label

    def __len__(self) -> int:
        return len(self._rows)

    def record(self, index: int) -> Record:
        """Return the record of a row."""
        row = Row(self._rows[index], self._label, index)
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
    **options: Any,
) -> RecordSet[Any]:
    """Load a split of a hub data set by configuration: repository, revision and columns.

    Args:
        repo: Repository id, or the name of a builder such as "parquet" with `data_files=`.
        split: Split name there.
        record: Type of the records, such as "image_qa".
        columns: Record field to column name.
        revision: Commit or tag. Data sets of the hub move, so it must be given for a repository; a local folder has
            none.
        name: Configuration of the repository.
        classes: Class names in label order, for classification; by default those of the label column.
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
    ColumnMapping(record, columns)
    import datasets

    rows = datasets.load_dataset(repo, name, split=split, revision=None if local else revision, **options)
    for column, feature in (rows.features or {}).items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
        elif isinstance(feature, datasets.ClassLabel) and classes is None:
            classes = list(feature.names)
    labels = {class_name: label for label, class_name in enumerate(classes or ())}
    mapping = ColumnMapping(record, columns, None, labels)
    return RecordSet(
        repo, split, record, HubRecords(rows, mapping, f"{repo}@{revision}" if revision else repo)
    )
