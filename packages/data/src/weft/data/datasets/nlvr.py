"""NLVR (version 1): a sentence about an image of three boxes, true or false (CC BY 4.0)."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec
from weft.data.errors import InvalidArgumentError
from weft.data.records.pair_bool import PairBool
from weft.data.records.rows import Row
from weft.data.records.source import Source

NUM_PERMUTATIONS = 6


def read(
    source: Source, split: str, *, permutation: int | str = 0, structured: bool = True
) -> Iterator[PairBool]:
    """Yield `PairBool` records with one image each.

    Every sentence has six images that differ in the order of the boxes only. Records that share the first
    part of their identifier were written for one presentation: they share `group_id` (the official
    consistency counts all of them, with all permutations) and should stay on one side of any split, as
    should everything with the same `extra["directory"]`.

    Options:
        permutation: 0 to 5, or "all" for six records per row.
        structured: Keep the official `structured_rep` in `extra`.
    """
    if permutation != "all" and (not isinstance(permutation, int) or not 0 <= permutation < NUM_PERMUTATIONS):
        raise InvalidArgumentError(
            f"`permutation` must be 0 to {NUM_PERMUTATIONS - 1} or 'all', but is {permutation!r}. Choose one."
        )
    chosen = range(NUM_PERMUTATIONS) if permutation == "all" else (int(permutation),)
    file = source.find(f"{split}/{split}.json", f"{split}/{split}_examples.json", f"{split}.json")
    rows = list(source.json_lines(file))
    images = source.media(
        [f"{split}/images"],
        archives=[f"{split}/images.zip", f"{split}/images_subset.zip"],
        probe=_path(rows[0], split, chosen[0]) if rows else None,
    )

    def make(row: Row) -> Iterator[PairBool]:
        identifier = row.text("identifier")
        first, _, second = identifier.partition("-")
        if not (first.isdigit() and second.isdigit()):
            row.fail(f"`identifier` must look like '1572-0', but is {identifier!r}")
        extra = {"identifier": identifier, "directory": row.identity("directory")}
        if structured and row.has("structured_rep"):
            extra["structured_rep"] = row.field("structured_rep")
        for k in chosen:
            yield PairBool(
                id=f"{split}-{identifier}-{k}",
                group_id=f"{split}-{first}",
                images=(images.ref(_path(row, split, k)),),
                sentence=row.text("sentence"),
                label=row.boolean("label"),
                extra={**extra, "permutation": k},
            )

    yield from source.build(rows, make)


def _path(row: Row, split: str, permutation: int) -> str:
    return f"{row.identity('directory')}/{split}-{row.text('identifier')}-{permutation}.png"


SPEC = DatasetSpec(
    name="nlvr",
    record_type="pair_bool",
    splits=("train", "dev", "test", "hidden"),
    read=read,
    summary="Sentences about images of coloured shapes in three boxes; true or false, with consistency.",
    licence="CC BY 4.0 (annotations and images)",
    citation="Suhr, Lewis, Yeh, Artzi: A Corpus of Natural Language for Visual Reasoning, ACL 2017.",
    how_to_get="Clone https://github.com/lil-lab/nlvr; root is the clone or its folder nlvr/, with "
    "SPLIT/SPLIT.json and SPLIT/images/ or SPLIT/images.zip.",
    bases=("", "nlvr"),
    expected={"train": 12410, "dev": 989, "test": 990, "hidden": 985},
)
