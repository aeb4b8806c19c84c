"""Scenes as files: a store that draws an image when it is read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

from weft.data.errors import MissingFileError
from weft.data.files import Store
from weft.data.scenes.render import render
from weft.data.scenes.scene import sample_scene


@dataclass(frozen=True)
class SceneStore(Store):
    """PNG images of the scenes of one pool, named `{pool}-{number}.png`.

    Args:
        pool: Name of the pool.
        num_scenes: Number of scenes.
        seed: Seed of the pool.
        allow_held_out: Whether held-out combinations may appear.
    """

    pool: str
    num_scenes: int
    seed: int
    allow_held_out: bool

    def read(self, path: str) -> bytes:
        """Draw a scene and encode it as PNG."""
        if not self.exists(path):
            raise MissingFileError(
                f"`path` must be {self.pool}-0.png to {self.pool}-{self.num_scenes - 1}.png, but is {path!r}."
            )
        scene = sample_scene(path.removesuffix(".png"), self.seed, allow_held_out=self.allow_held_out)
        stream = io.BytesIO()
        render(scene).save(stream, "PNG", compress_level=1)
        return stream.getvalue()

    def exists(self, path: str) -> bool:
        """Whether the name is one of the pool's."""
        pool, _, number = path.removesuffix(".png").rpartition("-")
        return (
            path.endswith(".png") and pool == self.pool and number.isdigit() and int(number) < self.num_scenes
        )

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield every name that begins with `prefix`, sorted."""
        yield from sorted(
            n for k in range(self.num_scenes) if (n := f"{self.pool}-{k}.png").startswith(prefix)
        )

    def describe(self, path: str = "") -> str:
        """Return the address of a scene for messages."""
        return f"scenes://{self.pool}/{self.seed}/{path}"
