"""Any folder (or archive) of images: by class (`SPLIT/CLASS/any.jpg`), or with a table that says what each shows."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weft.data.catalog import DatasetSpec
from weft.data.datasets._described_images import described, described_splits, is_metadata
from weft.data.datasets._image_names import IMAGE_ENDINGS, is_own_image
from weft.data.errors import InvalidArgumentError, unknown_name
from weft.data.records.classify import Classify
from weft.data.records.record import Record
from weft.data.records.source import MediaFolder, Source

LEAF = "leaf"
_TRAIN = "train"

Parts = tuple[str, ...]


def read(
    source: Source,
    split: str,
    *,
    classes: Sequence[str] | str | None = None,
    record: str | None = None,
    columns: Mapping[str, str | Sequence[str]] | None = None,
) -> Iterator[Record]:
    """Yield one `Classify` per image, sorted by path; with `record` one of that type per row of `metadata`.

    The tables `metadata.jsonl`, `.csv` or `.parquet` are those of the `datasets` library: they are beside the images,
    or above, and their column `file_name` (or `file_names`, a list) counts from there.

    Hidden folders and those of other programs (`.ipynb_checkpoints`, `@eaDir`, `__MACOSX`) are no classes. Names that
    differ only in how accents are composed (Unicode NFC and NFD) are one class.

    The split is a folder, or "all" where there are no splits.

    Options:
        classes: Class folders in label order. By default all class folders of every split, sorted, so that
            labels agree between splits even where one lacks a class. "leaf" does the same with the innermost
            folder of each image, instead of the first one below the split.
        record: Type of the records that `metadata` holds, such as "caption".
        columns: Record field to column of `metadata`, such as `{captions: text}`.
    """
    if record is not None:
        if isinstance(classes, str):
            raise InvalidArgumentError(f"`classes` must be a list beside `record`, but is {classes!r}.")
        yield from described(source, split, record, columns or {}, classes or ())
        return
    if columns is not None:
        raise InvalidArgumentError(
            f"`record` must say of which type the rows of `metadata` are, where `columns` is given ({dict(columns)})."
        )
    yield from _classified(source, split, classes)


def _classified(source: Source, split: str, classes: Sequence[str] | str | None) -> Iterator[Classify]:
    depth = 1 if split == "all" else 2
    paths = [tuple(name.split("/")) for name in source.store.names() if is_own_image(name)]
    paths = [parts for parts in paths if len(parts) > depth]
    own = [parts for parts in paths if split in ("all", parts[0])]
    if not own:
        splits = sorted({parts[0] for parts in paths if depth == 2})
        if splits:
            raise unknown_name(f"split of the image folder {source.store.describe()}", split, splits)
        raise source.missing([f"{split}/CLASS/*.jpg" if depth == 2 else "CLASS/*.jpg"], "images")
    leaf = classes == LEAF
    if isinstance(classes, str) and not leaf:
        raise InvalidArgumentError(
            f"`classes` must be a list of class folders, or {LEAF!r}, but is {classes!r}."
        )
    if any(is_metadata(name) for name in source.store.names()):
        source.notes.append(
            "what `metadata` says of the images is not read. Pass record=caption columns={captions: text}, or another."
        )
    folders = {parts: _composed(parts[-2] if leaf else parts[depth - 1]) for parts in paths}
    if leaf:
        _refuse_namesakes({parts[depth - 1 : -1] for parts in paths})
    else:
        _say_depth(source, own, depth)
    if classes is None or leaf:
        ordered = sorted(set(folders.values()))
        _say_untrained(source, folders, split)
    else:
        ordered = list(map(_composed, classes))
    if len(set(ordered)) != len(ordered):
        raise InvalidArgumentError(f"`classes` must not repeat a class, but is {ordered}.")
    labels = {name: label for label, name in enumerate(ordered)}
    source.classes = [_in_words(name) for name in ordered]
    media = MediaFolder(source.store)
    for parts in own:
        folder = folders[parts]
        if folder not in labels:
            raise unknown_name("class folder", folder, ordered, "Add it to `classes`.")
        path = "/".join(parts)
        yield Classify(
            id=path,
            image=media.ref(path),
            label=labels[folder],
            class_name=_in_words(folder),
            extra={"folder": folder},
        )


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _in_words(folder: str) -> str:
    return folder.replace("_", " ")


def _refuse_namesakes(folders: set[Parts]) -> None:
    """Refuse two places below the splits whose innermost folders have one name."""
    first: dict[str, str] = {}
    for parts in sorted(tuple(map(_composed, folder)) for folder in folders):
        path = "/".join(parts)
        other = first.setdefault(parts[-1], path)
        if other != path:
            raise InvalidArgumentError(
                f"`classes` can be {LEAF!r} where every innermost folder has a name of its own, but {other!r} and "
                f"{path!r} have one. Rename them, or leave `classes` out for the first folder below the split."
            )


def _say_depth(source: Source, own: Sequence[Parts], depth: int) -> None:
    deeper = [parts for parts in own if len(parts) > depth + 1]
    if deeper:
        example = "/".join(deeper[0][depth - 1 : -1])
        source.notes.append(
            f"{len(deeper):,} of {len(own):,} images lie below the folder of their class, such as those in "
            f"{example!r}, whose class is {deeper[0][depth - 1]!r}. Pass classes={LEAF} to take the innermost folder."
        )


def _say_untrained(source: Source, folders: Mapping[Parts, str], split: str) -> None:
    trained = {folder for parts, folder in folders.items() if parts[0] == _TRAIN}
    own = {folder for parts, folder in folders.items() if parts[0] == split}
    if trained and own - trained:
        absent = ", ".join(sorted(own - trained))
        source.notes.append(f"no image of the split {_TRAIN!r} is of class {absent}.")


def find_splits(source: Source, **options: Any) -> list[str]:
    """Folders that hold folders with images, or "all" where the folders of the root hold the images."""
    if options.get("record") is not None:
        return described_splits(source)
    parts = [name.split("/") for name in source.store.names() if name.lower().endswith(IMAGE_ENDINGS)]
    splits = sorted({folders[0] for folders in parts if len(folders) > 2})
    return splits or (["all"] if any(len(folders) > 1 for folders in parts) else [])


SPEC = DatasetSpec(
    name="image_folder",
    record_type="classify",
    splits=(),
    read=read,
    find_splits=find_splits,
    summary="Your own images, one folder per class, or with `metadata.jsonl` or `.csv`; any split names.",
    licence="yours",
    how_to_get="Put images under ROOT/SPLIT/CLASS/, or under ROOT/CLASS/ and use split='all'. "
    "ROOT may be a zip or tar archive or a URL. `metadata.jsonl` or `.csv` beside them is read with record=TYPE.",
)
