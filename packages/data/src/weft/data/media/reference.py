"""References to images and videos, which open nothing until asked."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

from weft.data.sources.store import BytesStore, Store

Kind = Literal["image", "video"]


@dataclass(frozen=True, slots=True)
class MediaRef:
    """A lazy reference to an image or a video.

    Args:
        path: Path inside `store`.
        store: Folder, archive or URL that holds the file.
        kind: "image" or "video".
        start: First second of the span that matters, or None for the beginning.
        end: Last second of the span, or None for the end.

    Raises:
        MissingFileError: By `identity`, `content` and what reads the file, if it is not there.
    """

    path: str
    store: Store = field(repr=False)
    kind: Kind = "image"
    start: float | None = None
    end: float | None = None

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        path: str = "image",
        kind: Kind = "image",
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
        """Digest of where the medium and its span are, fit to tell the media of one process apart."""
        return self._digest(self.store.place(self.path))

    @property
    def identity(self) -> str:
        """Digest that changes with the place, the span and, as far as size and times tell, with the content.

        Embedded media go by their content alone. What is kept for later processes goes by this.
        """
        return self._digest(self.store.identity(self.path))

    @property
    def content(self) -> str:
        """Digest of the content and the span, wherever it is; the whole file is read."""
        return self._digest(self.store.content(self.path))

    def _digest(self, file: str) -> str:
        return hashlib.sha256(repr((file, self.kind, self.start, self.end)).encode()).hexdigest()[:32]

    def exists(self) -> bool:
        """Tell whether the file is there, without reading it."""
        return self.store.exists(self.path)

    def read(self) -> bytes:
        """Return the encoded file."""
        return self.store.read(self.path)

    def open(self) -> BinaryIO:
        """Return a seekable binary stream of the encoded file."""
        return self.store.open(self.path)

    def image(self, *, background: tuple[int, int, int] = (255, 255, 255), draft: int | None = None) -> Any:
        """Decode the image to a `PIL.Image.Image` in RGB.

        Args:
            background: Colour behind transparent pixels, 0 to 255 per channel.
            draft: If given, JPEG files may be decoded at a reduced scale whose short side is still at
                least this many pixels; faster, not bit-identical to a full decode.

        Raises:
            CorruptMediaError: If the bytes are not a whole image.
        """
        from weft.data.media.images import decode_image

        return decode_image(self.read(), name=self.uri, background=background, draft=draft)
