"""What every record has and says of itself, and the types that are known by name.

A record type is a frozen dataclass in its own file, registered under its `record_type`. The types of its fields
say how they are read from columns and shards; its methods say what is right and which groups it counts in.

Ids are text everywhere; numbers of official files turn back into numbers when predictions are exported.
`extra` keeps official fields that a metric or a breakdown needs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, TypeVar, cast, get_args, get_origin, get_type_hints

from weft.data.errors import InvalidArgumentError, require_known
from weft.data.media.reference import MediaRef

EMPTY: Mapping[str, Any] = {}
_MEDIA = (MediaRef, tuple[MediaRef, ...])
_registered: dict[str, "type[Record]"] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What every record has.

    Args:
        id: Unique within its split.
        extra: Official fields that have no place of their own.
    """

    record_type: ClassVar[str] = "record"
    id: str
    extra: Mapping[str, Any] = field(default_factory=lambda: EMPTY)

    @classmethod
    def row_mapping(cls, columns: Mapping[str, Any], media: Any) -> Any:
        """What makes records of the rows of tables, where that is more than a column for each field; None elsewhere.

        Args:
            columns: What a user says of the columns.
            media: Folder that paths of media start from, a `weft.data.records.source.MediaFolder`, or None.

        Returns:
            An object as `weft.data.records.columns.RowMapping` says, or None.
        """
        return None

    def media_refs(self) -> tuple[MediaRef, ...]:
        """The images and videos of the record, in the order of its fields."""
        values = (getattr(self, name) for name in media_fields(type(self)))
        return tuple(ref for value in values for ref in (value if isinstance(value, tuple) else (value,)))

    def without_media(self) -> dict[str, Any]:
        """Field to value, but for the images and videos."""
        left_out = media_fields(type(self))
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in left_out}

    def references(self) -> tuple[str, ...]:
        """Every right answer, as a model writes it; none where it is hidden."""
        return ()

    def groups(self) -> dict[str, str]:
        """Axis to the group of it that the record counts in: kind of question, novelty, skin tone."""
        said = self.extra
        found = {"question_type": str(said["template"])} if said.get("template") else {}
        if "novel" in said:
            found["combination"] = "novel" if said["novel"] else "seen"
        if "tones" in said:
            found["skin_tone"] = "variant" if said["tones"] else "plain"
        return found

    def summary(self) -> str:
        """The text of the record in one line, to be looked at."""
        return self.id


R = TypeVar("R", bound=Record)


def register_record_type(kind: type[R]) -> type[R]:
    """Make a record type known by its `record_type`; a decorator above `@dataclass`.

    Raises:
        InvalidArgumentError: If the name is taken.
    """
    if _registered.setdefault(kind.record_type, kind) is not kind:
        raise InvalidArgumentError(
            f"`record_type` must be unique, but {kind.record_type!r} is taken. Choose another name."
        )
    return kind


def record_class(name: str, what: str = "record type") -> type[Record]:
    """The record type of a name, such as "image_qa"; `what` is what messages call the name.

    Raises:
        UnknownNameError: With near matches, if there is none.
    """
    require_known(what, _registered, name)
    return _registered[name]


def rebuilt(kind: type[R], values: Mapping[str, Any], media: Sequence[MediaRef]) -> R:
    """Return the record of what `without_media` and `media_refs` gave, also after JSON has made tuples lists.

    Of the fields of its type, one of several media comes after those of one.
    """
    given, left = dict(values), list(media)
    for name, hint in field_types(kind).items():
        if hint is MediaRef:
            given[name] = left.pop(0)
        elif get_origin(hint) is tuple:
            given[name] = tuple(left) if hint in _MEDIA else _tuples(hint, given[name])
    return kind(**given)


def _tuples(hint: Any, value: Any) -> Any:
    """A list, and those in it, as the tuples that its type says."""
    return tuple(_tuples(get_args(hint)[0], item) for item in value) if get_origin(hint) is tuple else value


def field_types(kind: type[Record]) -> Mapping[str, Any]:
    """Field of a record type to its type, in order."""
    return _shape(cast("Any", kind))[0]


def media_fields(kind: type[Record]) -> tuple[str, ...]:
    """The fields of a record type that hold an image, a video, or several of them."""
    return _shape(cast("Any", kind))[1]


@cache
def _shape(kind: Any) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    hints = get_type_hints(kind)
    types = {each.name: hints[each.name] for each in fields(kind)}
    return types, tuple(name for name, hint in types.items() if hint in _MEDIA)
