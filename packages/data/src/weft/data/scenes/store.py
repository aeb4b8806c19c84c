"""Scenes as files: stores that draw an image or a video when it is read."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any, ClassVar

from weft.data.errors import MissingFileError
from weft.data.scenes.motion import backwards, encode_video, sample_moving_scene
from weft.data.scenes.render import render
from weft.data.scenes.scene import GRID_SIZE, sample_scene
from weft.data.sources.store import Store


@dataclass(frozen=True)
class SceneStore(Store):
    """PNG images of the scenes of one pool, named `{pool}-{number}.png`; drawn as `sample_scene` does."""

    ending: ClassVar[str] = ".png"

    pool: str
    num_scenes: int
    seed: int
    allow_held_out: bool
    min_objects: int = 2
    max_objects: int = GRID_SIZE

    def read(self, path: str) -> bytes:
        """Draw a scene and encode it."""
        if not self.exists(path):
            raise MissingFileError(
                f"`path` must be {self.name(0)} to {self.name(self.num_scenes - 1)}, but is {path!r}."
            )
        return self._encoded(path.removesuffix(self.ending))

    def exists(self, path: str) -> bool:
        """Whether the name is one of the pool's."""
        pool, _, number = path.removesuffix(self.ending).rpartition("-")
        named = path.endswith(self.ending) and pool == self.pool
        return named and number.isdigit() and int(number) < self.num_scenes

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield every name that begins with `prefix`, sorted."""
        yield from sorted(name for k in range(self.num_scenes) if (name := self.name(k)).startswith(prefix))

    def name(self, number: int) -> str:
        """Name of the file of a scene."""
        return f"{self.pool}-{number}{self.ending}"

    def place(self, path: str) -> str:
        """Return all that a scene is drawn from."""
        return f"{self!r} {path}"

    def identity(self, path: str) -> str:
        """Return all that a scene is drawn from, the release that draws it included."""
        return f"{self.place(path)} {version('weft-data')}"

    def content(self, path: str) -> str:
        """Return what stands for the content: what is drawn is a function of it."""
        return self.identity(path)

    def describe(self, path: str = "") -> str:
        """Return the address of a scene for messages."""
        return f"scenes://{self.pool}/{self.seed}/{path}"

    @property
    def _knobs(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("min_objects", "max_objects", "allow_held_out")}

    def _encoded(self, name: str) -> bytes:
        scene = sample_scene(name, self.seed, **self._knobs)
        stream = io.BytesIO()
        render(scene).save(stream, "PNG", compress_level=1)
        return stream.getvalue()


@dataclass(frozen=True)
class MotionStore(SceneStore):
    """Animated PNGs of moving scenes, named `{pool}-{number}.apng`, and `{pool}-{number}-backwards.apng`.

    Where they are shuffled, the frames are shown in a random order.
    """

    ending: ClassVar[str] = ".apng"
    turned: ClassVar[str] = "-backwards"

    max_moving: int = 3
    num_frames: int = 8
    shuffled: bool = False

    def describe(self, path: str = "") -> str:
        """Return the address of a scene for messages, which differs where frames are shuffled."""
        return super().describe(f"shuffled/{path}" if self.shuffled else path)

    def exists(self, path: str) -> bool:
        """Whether the name is one of the pool's."""
        return super().exists(path.replace(f"{self.turned}{self.ending}", self.ending))

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield every name that begins with `prefix`, sorted."""
        both = (name for k in range(self.num_scenes) for name in (self.name(k), self.name_backwards(k)))
        yield from sorted(name for name in both if name.startswith(prefix))

    def name_backwards(self, number: int) -> str:
        """Name of the file of a scene that runs from its end to its start."""
        return f"{self.pool}-{number}{self.turned}{self.ending}"

    # A decoder opens a file twice: to see its length, and to take the frames.
    @lru_cache(maxsize=2)  # noqa: B019  (two small values)
    def _encoded(self, name: str) -> bytes:
        pooled = name.removesuffix(self.turned)
        scene = sample_moving_scene(pooled, self.seed, max_moving=self.max_moving, **self._knobs)
        order = None
        if self.shuffled:
            order = random.Random(f"{self.seed}/{name}/order").sample(range(self.num_frames), self.num_frames)
        return encode_video(backwards(scene) if name.endswith(self.turned) else scene, self.num_frames, order)
