"""Folders of images by WordNet id, as ImageNet and its variants are on disk."""

from collections.abc import Callable, Iterator, Sequence

from weft.data.datasets._image_names import is_own_image
from weft.data.errors import MalformedRecordError
from weft.data.records.classify import Classify
from weft.data.records.source import MediaFolder, Source

FEWER_CLASSES = 200
CLASS_NAMES = ("classnames.txt", "imagenet/classnames.txt")


def read_class_names(source: Source) -> dict[str, str]:
    """Return WordNet id to class name, in the order of `classnames.txt` (id, space, name on each line)."""
    file = source.find(*CLASS_NAMES)
    names: dict[str, str] = {}
    for number, line in enumerate(file.lines(), 1):
        if line.strip():
            wnid, _, name = line.strip().partition(" ")
            if not name or wnid in names:
                raise MalformedRecordError(
                    f"{file.name}, row {number}: must be a WordNet id of its own, a space and a name, but is "
                    f"{line.strip()!r}. Get classnames.txt again; CoOp's DATASETS.md links it."
                )
            names[wnid] = name
    return names


def read_folders(
    source: Source,
    folders: Sequence[str],
    *,
    domain: str,
    class_of: Callable[[str, dict[str, str]], str | None] | None = None,
    every_class: bool = True,
) -> Iterator[Classify]:
    """Yield one `Classify` per image, by class and then by file name.

    Labels count the class folders in sorted order: from 0 to 999, or to 199 for the variants with 200
    classes. `extra["imagenet_label"]` is the position among all 1,000, for masking logits.

    Args:
        source: Where the files are.
        folders: Candidates for the folder that holds the class folders.
        domain: Name of the image domain.
        class_of: Maps a folder name to a WordNet id; by default the folder is named by it.
        every_class: Whether labels are positions among all classes, also where folders are absent.
    """
    names = read_class_names(source)
    order = {wnid: label for label, wnid in enumerate(sorted(names))}
    media = _folder(source, folders)
    by_class: dict[str, list[str]] = {}
    for path in media.names():
        folder = path.rpartition("/")[0]
        if folder and "/" not in folder and is_own_image(path):
            wnid = class_of(folder, names) if class_of else folder
            if wnid not in order:
                raise MalformedRecordError(
                    f"{media.store.describe(media.prefix)}: folder {folder!r} must be a class of classnames.txt, but "
                    "is not. Remove the folder or get the right classnames.txt."
                )
            by_class.setdefault(wnid, []).append(path)
    source.classes = [names[wnid] for wnid in sorted(names if every_class else by_class)]
    if not every_class and len(by_class) != FEWER_CLASSES:
        source.notes.append(
            f"labels count the {len(by_class)} class folders that are there, but the set has {FEWER_CLASSES}. Get the "
            "others for its official labels."
        )
    for position, wnid in enumerate(sorted(by_class)):
        for path in sorted(by_class[wnid]):
            yield Classify(
                id=path,
                image=media.ref(path),
                label=order[wnid] if every_class else position,
                class_name=names[wnid],
                domain=domain,
                extra={"wnid": wnid, "imagenet_label": order[wnid]},
            )


def _folder(source: Source, folders: Sequence[str]) -> MediaFolder:
    found = source.media(
        folders, archives=[f"{folder}{end}" for folder in folders for end in (".zip", ".tar")]
    )
    if not found.names():
        raise source.missing([found.store.describe(found.prefix)], "images")
    return found
