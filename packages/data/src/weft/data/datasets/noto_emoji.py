"""noto-emoji: emoji images with their names in eleven languages, and with their skin tones as classes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weft.data.catalog import DatasetSpec
from weft.data.datasets._karpathy import check_task
from weft.data.errors import require_known
from weft.data.media.reference import MediaRef
from weft.data.records.caption import Caption
from weft.data.records.classify import Classify
from weft.data.records.record import Record
from weft.data.records.retrieval import Retrieval
from weft.data.records.rows import Row
from weft.data.records.source import MediaFiles, Source

LANGUAGES = ("en", "de", "es", "fr", "pt", "it", "ja", "zh", "ko", "ru", "ar")
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
TONE = "tone"


def read(
    source: Source, split: str, *, languages: Sequence[str] | str = ("en",), task: str = "caption"
) -> Iterator[Record]:
    """Yield one record per emoji and language, in file order.

    `extra` keeps `tones` (skin tones), `base` (the emoji without tone: records of one base show one
    concept), `aliases` and `keywords`.

    Options:
        languages: Languages of the names; a single code is accepted.
        task: "caption" for `Caption` records, "retrieval" for `Retrieval` records, "tone" for `Classify` records of
            the emoji that have one skin tone, in five classes.
    """
    chosen = (languages,) if isinstance(languages, str) else tuple(languages)
    require_known("language of noto_emoji", LANGUAGES, *chosen)
    if task == TONE:
        source.classes = list(TONES)
    else:
        check_task("noto_emoji", task, TONE)
    rows = list(source.json_lines(source.find("captions.jsonl")))
    images = MediaFiles(source, ["png72", "png/72", "images"], ["png72.zip"])

    def make(row: Row) -> Iterator[Record]:
        if row.text("split") != split:
            return
        media_id, names = row.text("id"), row.sub(row.mapping("names"))
        media = images.ref(row.text("file"))
        extra = row.kept("char", "tones", "base", "aliases", "keywords")
        if task == TONE:
            yield from _toned(row, media_id, media, extra)
            return
        for language in chosen:
            said: dict[str, Any] = {
                "id": media_id if len(chosen) == 1 else f"{media_id}.{language}",
                "media": media,
                "media_id": media_id,
                "language": language,
                "extra": extra,
            }
            name = names.text(language)
            if task == "caption":
                yield Caption(**said, captions=(name,))
            else:
                yield Retrieval(**said, text=name, text_id=f"{media_id}.{language}")

    yield from source.build(rows, make)


def _toned(row: Row, name: str, media: MediaRef, extra: Mapping[str, Any]) -> Iterator[Classify]:
    tones = row.texts("tones")
    if len(tones) != 1:
        return
    if tones[0] not in TONES:
        row.fail(f"`tones` must be of {', '.join(TONES)}, but is {tones[0]!r}")
    yield Classify(id=name, image=media, label=TONES.index(tones[0]), class_name=tones[0], extra=extra)


SPEC = DatasetSpec(
    name="noto_emoji",
    record_type="caption",
    splits=("train", "val", "test"),
    read=read,
    summary="3,543 emoji images (72 pixels) with names in eleven languages.",
    licence="Images: Apache 2.0 / SIL OFL 1.1; names: Unicode licence",
    citation="Google Fonts, Noto Emoji; names from the Unicode CLDR.",
    how_to_get="Root holds captions.jsonl (one JSON object per line: id, file, names, split, ...) and "
    "png72.zip or a folder png72/ with the 72-pixel images of https://github.com/googlefonts/noto-emoji.",
    expected={"train": 2782, "val": 234, "test": 527},
)
