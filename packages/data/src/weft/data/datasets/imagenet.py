"""ImageNet-1k and the test sets made for its classes: folders of images by WordNet id.

Source: labels as CoOp makes them, from sorted folders. Its few-shot draws list files in the order of the file system,
and cannot be repeated from a seed; store the draw.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._image_names import is_own_image
from weft.data.errors import MalformedRecordError
from weft.data.records.classify import Classify
from weft.data.records.source import MediaFolder, Source

FEWER_CLASSES = 200


def imagenet_set(
    name: str,
    *folders: str,
    class_of: Callable[[str, dict[str, str]], str | None] = lambda folder, names: folder,
    every_class: bool = True,
    **facts: Any,
) -> DatasetSpec:
    """Return a data set of one `Classify` per image, by class and then by file name.

    Labels count the class folders in sorted order: from 0 to 999, or to 199 for the variants with 200
    classes. `extra["imagenet_label"]` is the position among all 1,000, for masking logits.

    Args:
        name: Name of the data set, and of its image domain.
        *folders: Candidates for the folder that holds the class folders; `{split}` stands for the split.
        class_of: Maps a folder name, and WordNet ids to names, to a WordNet id; by default the folder is named by it.
        every_class: Whether labels are positions among all classes, also where folders are absent.
        **facts: What else a `DatasetSpec` says.
    """

    def read(source: Source, split: str) -> Iterator[Classify]:
        names = _class_names(source)
        order = {wnid: label for label, wnid in enumerate(sorted(names))}
        media = _folder(source, [folder.format(split=split) for folder in folders])
        by_class: dict[str, list[str]] = {}
        for path in media.names():
            folder = path.rpartition("/")[0]
            if folder and "/" not in folder and is_own_image(path):
                wnid = class_of(folder, names)
                if wnid not in order:
                    raise MalformedRecordError(
                        f"{media.store.describe(media.prefix)}: folder {folder!r} must be a class of classnames.txt, "
                        "but is not. Remove the folder or get the right classnames.txt."
                    )
                by_class.setdefault(wnid, []).append(path)
        source.classes = [names[wnid] for wnid in sorted(names if every_class else by_class)]
        if not every_class and len(by_class) != FEWER_CLASSES:
            source.notes.append(
                f"labels count the {len(by_class)} class folders that are there, but the set has {FEWER_CLASSES}. Get "
                "the others for its official labels."
            )
        for position, wnid in enumerate(sorted(by_class)):
            for path in sorted(by_class[wnid]):
                yield Classify(
                    id=path,
                    image=media.ref(path),
                    label=order[wnid] if every_class else position,
                    class_name=names[wnid],
                    domain=name,
                    extra={"wnid": wnid, "imagenet_label": order[wnid]},
                )

    return DatasetSpec(name=name, record_type="classify", read=read, **facts)


def _class_names(source: Source) -> dict[str, str]:
    """WordNet id to class name, in the order of `classnames.txt` (id, space, name on each line)."""
    file = source.find("classnames.txt", "imagenet/classnames.txt")
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


def _folder(source: Source, folders: Sequence[str]) -> MediaFolder:
    archives = [f"{folder}{ending}" for folder in folders for ending in (".zip", ".tar")]
    found = source.media(folders, archives=archives)
    if not found.names():
        raise source.missing([found.store.describe(found.prefix)], "images")
    return found


def _numbered(folder: str, names: dict[str, str]) -> str | None:
    """Folder k is class k of the sorted WordNet ids."""
    wnids = sorted(names)
    return wnids[int(folder)] if folder.isdigit() and int(folder) < len(wnids) else None


SPECS = (
    imagenet_set(
        "imagenet",
        "images/{split}",
        "{split}",
        splits=("train", "val"),
        summary="Photos in 1,000 classes.",
        licence="research use, by agreement",
        citation="Russakovsky et al.: ImageNet Large Scale Visual Recognition Challenge, IJCV 2015.",
        how_to_get="Images from https://image-net.org as images/{train,val}/n01440764/*.JPEG, classnames.txt as linked "
        "in CoOp's DATASETS.md; root is imagenet/.",
        bases=("", "imagenet", "ImageNet"),
        expected={"val": 50000},
        hub=(HubSource(repo="ILSVRC/imagenet-1k", note="gated"),),
    ),
    imagenet_set(
        "imagenet_a",
        "imagenet-a",
        every_class=False,
        splits=("test",),
        summary="Photos that fool classifiers, 200 classes.",
        licence="MIT",
        citation="Hendrycks et al.: Natural Adversarial Examples, CVPR 2021.",
        how_to_get="imagenet-a.tar from https://github.com/hendrycks/natural-adv-examples, and ImageNet's "
        "classnames.txt beside it; root is imagenet-adversarial/.",
        bases=("", "imagenet-adversarial", "imagenet-a"),
        expected={"test": 7500},
        hub=(HubSource(repo="clip-benchmark/wds_imagenet-a"),),
    ),
    imagenet_set(
        "imagenet_r",
        "imagenet-r",
        every_class=False,
        splits=("test",),
        summary="Renditions of 200 ImageNet classes.",
        licence="MIT",
        citation="Hendrycks et al.: The Many Faces of Robustness, ICCV 2021.",
        how_to_get="imagenet-r.tar from https://github.com/hendrycks/imagenet-r, and ImageNet's "
        "classnames.txt beside it; root is imagenet-rendition/.",
        bases=("", "imagenet-rendition", "imagenet-r"),
        expected={"test": 30000},
        hub=(HubSource(repo="clip-benchmark/wds_imagenet-r"),),
    ),
    imagenet_set(
        "imagenet_sketch",
        "images",
        "sketch",
        splits=("test",),
        summary="Sketches of the ImageNet classes.",
        licence="not stated",
        citation="Wang et al.: Learning Robust Global Representations by Penalizing Local Predictive Power, NeurIPS "
        "2019.",
        how_to_get="ImageNet-Sketch.zip from https://github.com/HaohanWang/ImageNet-Sketch, and ImageNet's "
        "classnames.txt beside it; root is imagenet-sketch/.",
        bases=("", "imagenet-sketch", "ImageNet-Sketch"),
        expected={"test": 50889},
        hub=(HubSource(repo="clip-benchmark/wds_imagenet_sketch"),),
    ),
    imagenet_set(
        "imagenet_v2",
        "imagenetv2-matched-frequency-format-val",
        class_of=_numbered,
        splits=("test",),
        summary="A second test set for ImageNet.",
        licence="MIT (code)",
        citation="Recht et al.: Do ImageNet Classifiers Generalize to ImageNet?, ICML 2019.",
        how_to_get="imagenetv2-matched-frequency.tar.gz from https://huggingface.co/datasets/vaishaal/ImageNetV2, and "
        "ImageNet's classnames.txt beside it; root is imagenetv2/.",
        bases=("", "imagenetv2"),
        expected={"test": 10000},
        hub=(HubSource(repo="clip-benchmark/wds_imagenetv2"),),
    ),
)
