"""One typed record per task; media are references that open nothing until asked.

Ids are text everywhere; numbers of official files turn back into numbers when predictions are exported.
`extra` keeps official fields that a metric or a breakdown needs.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar, Literal

from weft.data.sources.opening import BytesStore, Store

EMPTY: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class MediaRef:
    """A lazy reference to an image or a video.

    Args:
        path: Path inside `store`.
        store: Folder, archive or URL that holds the file.
        kind: "image" or "video".
        start: First second of the span that matters, or None for the beginning.
        end: Last second of the span, or None for the end.
    """

    path: str
    store: Store = field(repr=False)
    kind: Literal["image", "video"] = "image"
    start: float | None = None
    end: float | None = None

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        path: str = "image",
        kind: Literal["image", "video"] = "image",
        *,
        label: str = "memory",
    ) -> "MediaRef":
        """Return a reference to bytes that are already in memory.

        Args:
            data: The encoded file.
            path: What messages call it.
            kind: "image" or "video".
            label: What messages call the table or archive that it comes from.
        """
        return cls(path, BytesStore({path: data}, label), kind)

    @property
    def uri(self) -> str:
        """Address for messages, without credentials; two media may have the same one."""
        return self.store.describe(self.path)

    @property
    def place(self) -> str:
        """Digest of where the medium and its span lie, fit to tell the media of one process apart."""
        return self._digest(self.store.place(self.path))

    @property
    def identity(self) -> str:
        """Digest that changes with the place, the span and, as far as size and times tell, with the content.

        Embedded media go by their content alone. What is kept for later processes goes by this.

        Raises:
            MissingFileError: If the file is not there.
        """
        return self._digest(self.store.identity(self.path))

    @property
    def content(self) -> str:
        """Digest of the content and the span, wherever it lies; the whole file is read.

        Raises:
            MissingFileError: If the file is not there.
        """
        return self._digest(self.store.content(self.path))

    def _digest(self, file: str) -> str:
        return hashlib.sha256(repr((file, self.kind, self.start, self.end)).encode()).hexdigest()[:32]

    def exists(self) -> bool:
        """Tell whether the file is there, without reading it."""
        return self.store.exists(self.path)

    def read(self) -> bytes:
        """Return the encoded file.

        Raises:
            MissingFileError: If the file is not there.
        """
        return self.store.read(self.path)

    def open(self) -> BinaryIO:
        """Return a seekable binary stream of the encoded file."""
        return self.store.open(self.path)

    def image(self, *, background: tuple[int, int, int] = (255, 255, 255), draft: int | None = None) -> Any:
        """Decode the image to a `PIL.Image.Image` in RGB.

        Args:
            background: Colour that transparent pixels are laid upon, 0 to 255 per channel.
            draft: If given, JPEG files may be decoded at a reduced scale whose short side is still at
                least this many pixels; faster, not bit-identical to a full decode.

        Raises:
            CorruptMediaError: If the bytes are not a whole image.
        """
        from weft.data.media.images import decode_image

        return decode_image(self.read(), name=self.uri, background=background, draft=draft)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What every record has.

    Args:
        id: Unique within its split.
        extra: Official fields that have no place of their own.
    """

    task: ClassVar[str] = "record"
    id: str
    extra: Mapping[str, Any] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageQA(Record):
    """A question about one image.

    Args:
        image: The image.
        image_id: Identity of the image across records.
        question: The question as written.
        answers: Every annotator's answer (ten in VQA v2), or the one gold answer; empty if hidden.
        question_type: Official type for breakdowns, or "".
        answer_type: Official type for breakdowns, or "".
        soft_targets: Answer to score in 0..1; empty if hidden or not defined.
    """

    task: ClassVar[str] = "image_qa"
    image: MediaRef
    image_id: str
    question: str
    answers: tuple[str, ...] = ()
    question_type: str = ""
    answer_type: str = ""
    soft_targets: Mapping[str, float] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairBool(Record):
    """A statement that is true or false of one or two images.

    Args:
        images: One image (NLVR) or left and right (NLVR2).
        group_id: Records of one group count together for consistency.
        sentence: The statement.
        label: Whether it is true; None if hidden.
    """

    task: ClassVar[str] = "pair_bool"
    images: tuple[MediaRef, ...]
    group_id: str
    sentence: str
    label: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption(Record):
    """An image or video with its reference captions.

    Args:
        media: The image or the video.
        media_id: Identity of the media across records.
        captions: Reference captions; empty if hidden.
        language: BCP 47 tag.
        subtitles: Spoken text in the span, or "".
    """

    task: ClassVar[str] = "caption"
    media: MediaRef
    media_id: str
    captions: tuple[str, ...] = ()
    language: str = "en"
    subtitles: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval(Record):
    """One positive pair of a text and a media; several records may share either side.

    Args:
        media: The image or the video.
        media_id: Identity of the media across records.
        text: The text.
        text_id: Identity of the text across records.
        language: BCP 47 tag.
    """

    task: ClassVar[str] = "retrieval"
    media: MediaRef
    media_id: str
    text: str
    text_id: str
    language: str = "en"


@dataclass(frozen=True, slots=True, kw_only=True)
class Classify(Record):
    """An image and its class.

    Args:
        image: The image.
        label: Class index, from 0.
        class_name: The class in words.
        domain: Name of the image domain (for shifts such as ImageNet-Sketch), or "".
    """

    task: ClassVar[str] = "classify"
    image: MediaRef
    label: int
    class_name: str
    domain: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoMC(Record):
    """A multiple-choice question about a video.

    Args:
        video: The video; its span in seconds is in `video.start` and `video.end`.
        media_id: Identity of the video across records.
        question: The question.
        options: The answers to choose from.
        answer: Index of the right option; None if hidden.
        subtitles: Spoken text in the span, or "".
    """

    task: ClassVar[str] = "video_mc"
    video: MediaRef
    media_id: str
    question: str
    options: tuple[str, ...]
    answer: int | None = None
    subtitles: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoQA(Record):
    """An open question about a video.

    Args:
        video: The video.
        media_id: Identity of the video across records.
        question: The question.
        answers: Gold answers; empty if hidden.
    """

    task: ClassVar[str] = "video_qa"
    video: MediaRef
    media_id: str
    question: str
    answers: tuple[str, ...] = ()


RECORD_TYPES: dict[str, type[Record]] = {
    kind.task: kind for kind in (ImageQA, PairBool, Caption, Retrieval, Classify, VideoMC, VideoQA)
}
"""Task name to record type."""


MEDIA_FIELDS = ("image", "images", "media", "video")


def media_of(record: Record) -> tuple[MediaRef, ...]:
    """Return the media references of a record, in the order of its fields."""
    found: list[MediaRef] = []
    for name in MEDIA_FIELDS:
        value = getattr(record, name, None)
        if isinstance(value, MediaRef):
            found.append(value)
        elif value is not None:
            found.extend(value)
    return tuple(found)
