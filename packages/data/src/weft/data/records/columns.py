"""Turn rows with named columns into records: one mapping for tables, tars and the hub."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Protocol

from weft.data.errors import require_known
from weft.data.media.reference import Kind, MediaRef
from weft.data.records.classify import Classify
from weft.data.records.record import Record, field_types, media_fields, record_class
from weft.data.records.rows import Row
from weft.data.records.source import MediaFolder, columns_without, media_reference
from weft.data.sources.store import BytesStore

_MEDIA = ("image", "media", "video", "images")
_READERS: Mapping[Any, Callable[[Row, str], Any]] = {
    str: Row.text,
    int: Row.integer,
    int | None: Row.integer,
    float: Row.number_of,
    bool: Row.boolean,
    bool | None: Row.boolean,
    tuple[str, ...]: Row.writings,
    Mapping[str, float]: Row.mapping,
}
"""What reads a field of a type from a column; names that end in `id` are identities, other types stay as they are."""


class RowMapping(Protocol):
    """What makes records of rows with named columns."""

    @property
    def kind(self) -> type[Record]:
        """Type of the records."""

    def record(self, row: Row, fallback_id: str) -> Record:
        """Return the record of a row with named columns; `fallback_id` is its id where it has none."""


class ColumnMapping:
    """Which column feeds which field of a record.

    Args:
        record_type: Type of the records, such as "image_qa".
        columns: Record field to column name (for `images` a list of columns). Fields that are not named use
            the column of their own name.
        media: Folder that paths in media columns start from.
        labels: Class name to label, for rows that have a name and no label.

    Raises:
        UnknownNameError: For an unknown record type or field.
    """

    def __init__(
        self,
        record_type: str,
        columns: Mapping[str, str | Sequence[str]],
        media: MediaFolder | None = None,
        labels: Mapping[str, int] | None = None,
    ) -> None:
        self.kind = record_class(record_type)
        names = list(field_types(self.kind))
        require_known(f"field of {record_type} in `columns`", names, *columns)
        told = {name: columns.get(name, name) for name in names}
        self.columns = {name: [own] if isinstance(own, str) else list(own) for name, own in told.items()}
        self._media = media
        self._labels = labels or {}

    def class_name(self, row: Row) -> str:
        """Return the class name of a row, accents composed (Unicode NFC), or ""."""
        column = self.columns.get("class_name", [""])[0]
        return unicodedata.normalize("NFC", row.text(column)) if row.has(column) else ""

    def has_label(self, row: Row) -> bool:
        """Tell whether a row has its own label."""
        return row.has(self.columns["label"][0])

    def label(self, row: Row) -> int:
        """Return the label of a row that has one."""
        return row.integer(self.columns["label"][0])

    def record(self, row: Row, fallback_id: str) -> Record:
        """Return the record of a row, see `RowMapping`; columns that no field takes go to `extra`.

        Raises:
            MalformedRecordError: If a needed column is absent or has the wrong type.
        """
        row.columns()
        values: dict[str, Any] = {}
        for name, columns in self.columns.items():
            if name in media_fields(self.kind):
                values[name] = self._media_of(row, name, columns)
            elif name != "extra" and row.has(columns[0]):
                values[name] = self._value(row, name, columns[0])
        values.setdefault("id", fallback_id)
        if self.kind is Classify:
            self._complete_class(row, values)
        for name in self.columns:
            if name.endswith("_id") and name not in values:
                values[name] = self._identity(values, name)
        for field in fields(self.kind):
            if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
                row.fail(f"must have the column `{self.columns[field.name][0]}` for the field `{field.name}`")
        used = {column for columns in self.columns.values() for column in columns}
        values["extra"] = columns_without(row, used | set(_MEDIA))
        return self.kind(**values)

    def _identity(self, values: Mapping[str, Any], name: str) -> str:
        """What stands for an absent identity: for media that of the medium, for the others the record's id.

        A path is one only within the folder that all paths start from: two archives may hold equal names.
        """
        found = [values[key] for key in media_fields(self.kind) if isinstance(values[key], MediaRef)]
        if name not in ("image_id", "media_id") or not found:
            return str(values["id"])
        if isinstance(found[0].store, BytesStore):
            return str(found[0].content)
        own = self._media is not None and found[0].store is self._media.store
        return str(found[0].path if own else values["id"])

    def _complete_class(self, row: Row, values: dict[str, Any]) -> None:
        name = values["class_name"] = unicodedata.normalize("NFC", values.get("class_name", ""))
        if "label" not in values:
            label, column = self.columns["label"][0], self.columns["class_name"][0]
            if not self._labels:
                row.fail(f"must have the column `{label}`, where `classes` does not number the names")
            if name not in self._labels:
                row.fail(f"`{column}` must be one of {', '.join(self._labels)}, but is {name!r}")
            values["label"] = self._labels[name]
        values["class_name"] = name or str(values["label"])

    def _media_of(self, row: Row, name: str, columns: Sequence[str]) -> Any:
        kind: Kind = "video" if name == "video" else "image"
        column = columns[0]
        values = row.field(column) if len(columns) == 1 else [row.field(each) for each in columns]
        many = values if isinstance(values, list) else [values]
        if field_types(self.kind)[name] is MediaRef:
            if len(many) != 1:
                row.fail(
                    f"`{column}` must be one {kind}, as records of type {self.kind.record_type!r} show, but is a list "
                    f"of {len(many)}: take `record: conversation`, or pair_bool"
                )
            return media_reference(row, column, many[0], self._media, kind)
        return tuple(
            media_reference(row, column, value, self._media, kind, f", image {place}")
            for place, value in enumerate(many, 1)
        )

    def _value(self, row: Row, name: str, column: str) -> Any:
        if name == "id" or name.endswith("_id"):
            return row.identity(column)
        return _READERS.get(field_types(self.kind)[name], Row.field)(row, column)


def mapping_of(
    record_type: str,
    columns: Mapping[str, str | Sequence[str]],
    media: MediaFolder | None = None,
    labels: Mapping[str, int] | None = None,
) -> RowMapping:
    """Return what makes records of a type: its own `row_mapping`, or else a `ColumnMapping`, whose arguments these are.

    Raises:
        UnknownNameError: For an unknown record type or field.
    """
    own: RowMapping | None = record_class(record_type).row_mapping(columns, media)
    return ColumnMapping(record_type, columns, media, labels) if own is None else own
