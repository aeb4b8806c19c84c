"""FGVC-Aircraft: photos of 100 aircraft variants, with the official split lists."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec
from weft.data.records.classify import Classify
from weft.data.records.rows import Row
from weft.data.records.source import MediaFiles, Source


def read(source: Source, split: str) -> Iterator[Classify]:
    """Yield one `Classify` per line of `images_variant_{split}.txt`; labels follow `variants.txt`.

    A line is an image id, a space, and the class name, which may hold spaces.
    """
    variants = source.find("variants.txt")
    names = [line.strip() for line in variants.lines() if line.strip()]
    labels = {name: label for label, name in enumerate(names)}
    source.classes = names
    file = source.find(f"images_variant_{split}.txt")
    lines = [line for line in file.lines() if line.strip()]
    images = MediaFiles(source, ["images"], ["images.zip", "images.tar"])

    def make(row: Row) -> Classify:
        number, _, name = str(row.value).strip().partition(" ")
        if name not in labels:
            row.fail(f"the class must be a line of {variants.path}, but is {name!r}")
        return Classify(id=number, image=images.ref(f"{number}.jpg"), label=labels[name], class_name=name)

    yield from source.build(source.rows(file, lines), make)


SPEC = DatasetSpec(
    name="fgvc_aircraft",
    record_type="classify",
    splits=("train", "val", "test"),
    read=read,
    summary="Aircraft of 100 variants.",
    licence="non-commercial research",
    citation="Maji et al., 2013.",
    how_to_get="fgvc-aircraft-2013b.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/; root is "
    "fgvc_aircraft/ (the former data/) with variants.txt, images_variant_SPLIT.txt and images/.",
    bases=("", "fgvc_aircraft", "fgvcaircraft", "data", "fgvc-aircraft-2013b/data"),
    expected={"train": 3334, "val": 3333, "test": 3333},
)
