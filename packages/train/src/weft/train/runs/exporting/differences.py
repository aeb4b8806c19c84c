"""What differs between a record asked of the run and of the export, in words that name the cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from weft.train.runs.exporting.outputs import IDS, Asked

# Largest difference of logits, relative to the largest logit: what the same sums in another order make.
ALLOWED = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}


@dataclass
class Found:
    """What the records of one task showed.

    Attributes:
        records: Records compared.
        faults: Kind of comparison to what differed first.
        largest: Largest difference of logits, relative to the largest logit.
        equal: Kind of comparison to the number of records in which nothing differed.
    """

    records: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    largest: float = 0.0
    equal: Counter[str] = field(default_factory=Counter)

    def add(self, ours: Asked, theirs: Asked, name: str, allowed: float) -> None:
        """Compare one record, by the name that messages give it; differences of logits up to `allowed` are none."""
        self.records += 1
        difference = logits_apart(ours, theirs)
        self.largest = max(self.largest, difference)
        told = {
            "prompt_ids": prompts_apart(ours, theirs),
            "pixel_tensors": pixels_apart(ours.inputs, theirs.inputs),
            "logits": f"logits differ by {difference:.2g} of the largest, of which {allowed:.0e} is allowed"
            if not difference <= allowed
            else None,
            "answers": f"answers differ: the run writes {ours.answer!r}, the export {theirs.answer!r}"
            if ours.answer != theirs.answer
            else None,
        }
        for kind, fault in told.items():
            self.equal[kind] += fault is None
            if fault is not None:
                self.faults.setdefault(kind, f"{fault} ({name})")


def prompts_apart(ours: Asked, theirs: Asked) -> str | None:
    """How the prompts of a record differ between run and export, or None."""
    own, other = ours.inputs[IDS][0].tolist(), theirs.inputs[IDS][0].tolist()
    if own == other:
        return None
    (ids, counts), (other_ids, other_counts) = _repeated(own), _repeated(other)
    if ids == other_ids:
        here, there = max(zip(counts, other_counts, strict=True), key=lambda pair: abs(pair[0] - pair[1]))
        return (
            f"prompt ids differ in how often one is repeated, {here} times in the run and {there} in the export, as "
            "where pictures have another size: the pixel budget of the processor is another"
        )
    place = next(
        (k for k, pair in enumerate(zip(own, other, strict=False)) if pair[0] != pair[1]),
        min(len(own), len(other)),
    )
    return (
        f"prompt ids differ from place {place} on, as with another chat template: the run reads "
        f"{_short(ours.prompt)}, the export {_short(theirs.prompt)}"
    )


def pixels_apart(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str | None:
    """How the tensors that are read beside the prompt differ, or None."""
    own, other = (
        {name: value for name, value in given.items() if value.shape[:2] != given[IDS].shape}
        for given in (ours, theirs)
    )
    if own.keys() != other.keys():
        return f"tensors of pictures are {_listed(own)} in the run and {_listed(other)} in the export"
    for name, value in own.items():
        if value.shape != other[name].shape:
            return (
                f"pixel tensors differ: `{name}` is {tuple(value.shape)} in the run and {tuple(other[name].shape)} in "
                "the export, as with another pixel budget or size"
            )
        if not torch.equal(value, other[name].to(value.dtype)):
            largest = float((value.double() - other[name].double()).abs().max())
            return f"pixel tensors differ: `{name}` by up to {largest:.3g}"
    return None


def logits_apart(ours: Asked, theirs: Asked) -> float:
    """Largest difference of logits up to the first token that differs, over the largest logit; infinite without any."""
    length = min(len(ours.tokens), len(theirs.tokens))
    different = (ours.tokens[:length] != theirs.tokens[:length]).nonzero()
    length = int(different[0]) + 1 if len(different) else length
    own, other = ours.logits[:length], theirs.logits[:length]
    if own.shape != other.shape or not length:
        return float("inf")
    finite = own.isfinite()
    if not torch.equal(finite, other.isfinite()):
        return float("inf")
    own, other = own[finite], other[finite]
    return float((own - other).abs().max() / own.abs().max().clamp_min(1e-12))


def modules_apart(
    expected: Mapping[str, str], acting: Mapping[str, str], called: Mapping[str, set[str]]
) -> str | None:
    """Which modules act in the run and not in the export, or the other way, or None.

    Args:
        expected: Path of each module that acts in the run to what acts there.
        acting: The same of the export.
        called: `run` and `export` to the paths of those that were called.
    """
    own = set(expected) & called["run"]
    other = set(acting) & called["export"]
    if own == other:
        return None
    lacking, more = sorted(own - other), sorted(other - own)
    said = f"{len(other & own)} of {len(own)} modules took effect"
    said += f"; nothing acts at {_listed(lacking)}" if lacking else ""
    return said + (f"; something acts at {_listed(more)}, where the run has nothing" if more else "")


def _repeated(ids: Sequence[int]) -> tuple[list[int], list[int]]:
    """Ids without what is repeated, and how often each comes in a row."""
    groups = [(token, len(list(group))) for token, group in groupby(ids)]
    return [token for token, _ in groups], [count for _, count in groups]


def _short(text: str) -> str:
    return repr(text if len(text) <= 120 else f"{text[:60]}…{text[-60:]}")


def _listed(names: Mapping[str, object] | Sequence[str]) -> str:
    shown = list(names)[:3]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if shown else "none"
