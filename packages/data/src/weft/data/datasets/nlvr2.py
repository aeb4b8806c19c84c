"""NLVR2: a sentence about two photos, true or false (annotations CC BY 4.0; the photos are not licensed)."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.records.pair_bool import PairBool
from weft.data.records.rows import Row
from weft.data.records.source import MediaFiles, Source

_VLT5 = {"vlt5_train": "train", "vlt5_valid": "valid", "vlt5_test": "test"}
_KEPT = ("identifier", "synset", "query", "writer", "validation", "extra_validations", "directory")


def read(source: Source, split: str, *, annotations: str | None = None) -> Iterator[PairBool]:
    """Yield `PairBool` records with a left and a right image.

    `group_id` is the identifier without its pair number: records of one group show one sentence with several
    pairs, and count together for consistency.

    Splits `vlt5_*` read the lists of VL-T5 and VL-Adapter.

    Options:
        annotations: Path of the annotation file below the root, where it has no official name.
    """
    listed = split in _VLT5
    if listed:
        rows = source.json_rows(source.find(annotations or f"{_VLT5[split]}.json"))
    else:
        file = source.find(annotations or f"{split}.json", f"{split.split('_')[0]}/{split}.json")
        rows = source.json_lines(file)
    images: dict[str, MediaFiles] = {}

    def make(row: Row) -> PairBool:
        identifier = row.text("identifier")
        parts = identifier.split("-")
        if len(parts) != 4 or not all(part.isdigit() for part in parts[1:]):
            row.fail(f"`identifier` must look like 'dev-850-0-0', but is {identifier!r}")
        if listed:
            names = [row.text("img0"), row.text("img1")]
        else:
            folder = f"{row.identity('directory')}/" if row.has("directory") else ""
            names = [f"{folder}{'-'.join(parts[:3])}-img{k}" for k in (0, 1)]
        photos = images.setdefault(parts[0], _images(source, parts[0]))
        return PairBool(
            id=row.text("uid", identifier) if listed else identifier,
            group_id="-".join((parts[0], parts[1], parts[3])),
            images=tuple(photos.ref(f"{name}.png") for name in names),
            sentence=row.text("sent" if listed else "sentence"),
            label=row.boolean("label") if row.has("label") else None,
            extra={"identifier": identifier} if listed else row.kept(*_KEPT),
        )

    yield from source.build(rows, make)


def _images(source: Source, subset: str) -> MediaFiles:
    return MediaFiles(
        source,
        [f"images/{subset}", subset, f"{subset}/images", "images"],
        [f"{subset}_img.zip", f"{subset}.zip", "images.zip"],
        what="photos (they must be asked for from the authors)",
    )


SPEC = DatasetSpec(
    name="nlvr2",
    record_type="pair_bool",
    splits=(
        *("train", "dev", "test1", "test2"),
        *("balanced_dev", "unbalanced_dev", "balanced_test1", "unbalanced_test1"),
        *_VLT5,
    ),
    read=read,
    summary="Sentences about pairs of photos, true or false, with consistency.",
    licence="Annotations CC BY 4.0; photos are not licensed",
    citation="Suhr et al.: A Corpus for Reasoning About Natural Language Grounded in Photographs, ACL 2019.",
    how_to_get="Annotations from https://github.com/lil-lab/nlvr (folder nlvr2/data), photos by the form named there; "
    "root holds SPLIT.json and images/SPLIT/. Files named .png are often JPEG, which is fine.",
    bases=(
        *("", "nlvr2/data", "data", "nlvr2/data/balanced", "data/balanced", "nlvr2/data/unbalanced"),
        *("nlvr", "nlvr2"),
    ),
    expected={"train": 86373, "dev": 6982, "test1": 6967, "test2": 6970},
    hub=(HubSource(repo="lmms-lab/NLVR2"),),
)
