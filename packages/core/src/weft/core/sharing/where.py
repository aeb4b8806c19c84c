"""Where a rule of a policy holds: in a range of layers, in some towers, stacks and blocks."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator, model_serializer

from weft.core.backbone.sites import Site
from weft.core.sharing.axes import fail


class Where(BaseModel):
    """Some of the sites. What is None restricts nothing.

    Args:
        range: First and last layer; sites outside the layers are in no range.
        towers: Towers.
        stacks: Stacks within them.
        blocks: Blocks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    range: tuple[int, int] | None = None
    towers: tuple[str, ...] | None = None
    stacks: tuple[str, ...] | None = None
    blocks: tuple[str, ...] | None = None

    @field_validator("range", mode="before")
    @classmethod
    def _from_words(cls, value: Any) -> Any:
        if value is None or isinstance(value, tuple):
            return value
        first, dash, last = str(value).partition("-")
        if (
            isinstance(value, bool)
            or not first.strip().isdecimal()
            or (dash and not last.strip().isdecimal())
        ):
            fail(
                f"`range` must be the first and the last layer, such as 0-5, or one layer, but is {value!r}. Layers "
                "count from 0."
            )
        ends = int(first), int(last if dash else first)
        if ends[0] > ends[1]:
            fail(f"`range` must name the lower layer first, but is {value!r}. Write {ends[1]}-{ends[0]}.")
        return ends

    @field_validator("towers", "stacks", "blocks", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        words = (value,) if isinstance(value, str) else value
        if words is not None and not words:
            fail(
                "`towers`, `stacks` and `blocks` of a rule must name something, but one is empty. Leave it out."
            )
        return None if words is None else tuple(sorted(set(words)))

    def __contains__(self, site: Site) -> bool:
        within = self.range is None or (
            site.layer is not None and self.range[0] <= site.layer <= self.range[1]
        )
        pairs = ((self.towers, site.tower), (self.stacks, site.stack), (self.blocks, site.block))
        return within and all(words is None or word in words for words, word in pairs)

    def meets(self, other: Where) -> bool:
        """Whether a site might be in both."""
        if self.range is not None and other.range is not None:
            first, last = max(self.range[0], other.range[0]), min(self.range[1], other.range[1])
            if first > last:
                return False
        pairs = ((self.towers, other.towers), (self.stacks, other.stacks), (self.blocks, other.blocks))
        return all(a is None or b is None or not set(a).isdisjoint(b) for a, b in pairs)

    @model_serializer
    def to_words(self) -> dict[str, Any]:
        """The place in the words of a recipe."""
        words: dict[str, Any] = {}
        if self.range is not None:
            first, last = self.range
            words["range"] = str(first) if first == last else f"{first}-{last}"
        named = {"towers": self.towers, "stacks": self.stacks, "blocks": self.blocks}
        return words | {key: list(value) for key, value in named.items() if value is not None}

    def __str__(self) -> str:
        words = []
        if self.range is not None:
            first, last = self.range
            words.append(f"layer {first}" if first == last else f"layers {first}-{last}")
        named = {"tower": self.towers, "stack": self.stacks, "block": self.blocks}
        words += [
            f"{name}{'s' if len(value) > 1 else ''} {' and '.join(value)}"
            for name, value in named.items()
            if value is not None
        ]
        return ", ".join(words) or "everywhere"
