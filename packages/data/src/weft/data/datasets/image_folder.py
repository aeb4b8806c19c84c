"""Any folder (or archive) of images by class: `SPLIT/CLASS/any.jpg`, or `CLASS/any.jpg` for split "all"."""

from collections.abc import Iterator, Sequence

from weft.data.catalog import DatasetSpec
from weft.data.errors import InvalidArgumentError, unknown_name
from weft.data.records import Classify, Record
from weft.data.source import MediaFolder, Source

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def read(source: Source, split: str, *, classes: Sequence[str] | None = None) -> Iterator[Record]:
    """Yield one `Classify` per image, sorted by path.

    Args:
        source: Where the images lie.
        split: Name of the folder of the split, or "all" where there are no splits.
        classes: Class folders in label order. By default all class folders of every split, sorted, so that
            labels agree between splits even where one lacks a class.
    """
    names = [
        name
        for name in source.store.names()
        if name.lower().endswith(IMAGE_ENDINGS) and not name.rsplit("/", 1)[-1].startswith(".")
    ]
    paths = [name.split("/") for name in names]
    depth = 1 if split == "all" else 2
    own = [parts for parts in paths if len(parts) > depth and (split == "all" or parts[0] == split)]
    if not own:
        splits = sorted({parts[0] for parts in paths if len(parts) > 2})
        if splits:
            raise unknown_name(f"split of the image folder {source.store.describe()}", split, splits)
        raise source.missing([f"{split}/CLASS/*.jpg" if depth == 2 else "CLASS/*.jpg"], "images")
    found = sorted({parts[depth - 1] for parts in paths if len(parts) > depth})
    ordered = list(classes) if classes is not None else found
    if len(set(ordered)) != len(ordered):
        raise InvalidArgumentError(f"`classes` must not repeat a class, but is {ordered}.")
    labels = {name: label for label, name in enumerate(ordered)}
    media = MediaFolder(source.store)
    for parts in own:
        name = parts[depth - 1]
        if name not in labels:
            raise unknown_name("class folder", name, ordered, "Add it to `classes`.")
        path = "/".join(parts)
        yield Classify(
            id=path,
            image=media.ref(path),
            label=labels[name],
            class_name=name.replace("_", " "),
            extra={"folder": name},
        )


SPEC = DatasetSpec(
    name="image_folder",
    task="classify",
    splits=(),
    read=read,
    summary="Your own images, one folder per class; any split names.",
    licence="yours",
    how_to_get="Put images under ROOT/SPLIT/CLASS/, or under ROOT/CLASS/ and use split='all'. "
    "ROOT may be a zip or tar archive or a URL.",
)
