"""The few-shot protocol of CoOp: which images a K-shot classifier may see.

Draws are lists of indices, stored as JSON, so that they can be published and read without running code.
"""

import json
import math
import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from weft.data.errors import InvalidArgumentError, StateMismatchError, unknown_name
from weft.data.processes.atomic import write_text
from weft.data.records.classify import Classify
from weft.data.records.record_set import RecordSet

VALIDATION_SHOTS = 4
"""The protocol never draws more validation images per class than this."""


@dataclass(frozen=True)
class FewShotDraw:
    """Indices of a K-shot draw.

    Args:
        dataset: Name of the data set.
        shots: Images per class (K).
        seed: Seed of the draw.
        train: Indices into the training records.
        validation: Indices into the validation records; empty if there were none.
        train_fingerprint: Fingerprint of the training records.
        validation_fingerprint: Fingerprint of the validation records, or "".
        protocol: Name of the sampling rule.
    """

    dataset: str
    shots: int
    seed: int
    train: tuple[int, ...]
    validation: tuple[int, ...]
    train_fingerprint: str
    validation_fingerprint: str = ""
    protocol: str = "coop"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the draw as JSON, at once or not at all."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "FewShotDraw":
        """Read a draw written by `save`.

        Raises:
            StateMismatchError: If the file is no such draw.
        """
        try:
            values: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
            values["train"], values["validation"] = tuple(values["train"]), tuple(values["validation"])
            return cls(**values)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise StateMismatchError(
                f"`path` must be a few-shot draw written by FewShotDraw.save, but {path} is not: {error}. Draw again."
            ) from error

    def apply(
        self, train: RecordSet[Classify], validation: RecordSet[Classify] | None = None
    ) -> tuple[RecordSet[Classify], RecordSet[Classify] | None]:
        """Return the drawn records.

        Raises:
            StateMismatchError: If the records are not those the draw was made from.
        """
        _same(train, self.train_fingerprint, "train")
        drawn = train.select(self.train)
        if validation is None:
            return drawn, None
        _same(validation, self.validation_fingerprint, "validation")
        return drawn, validation.select(self.validation)


def draw_few_shot(
    train: RecordSet[Classify],
    validation: RecordSet[Classify] | None = None,
    *,
    shots: int = 16,
    seed: int = 1,
) -> FewShotDraw:
    """Draw K images per class from `train`, then min(K, 4) per class from `validation`.

    One `random.Random(seed)` serves both. Classes come in the order in which they first appear; within a
    class `random.sample` chooses among its images in file order; a class with fewer than K gives all it has.

    Args:
        train: Training records, in official order.
        validation: Validation records, in official order, or None.
        shots: K, at least 1; the papers use 1, 2, 4, 8 and 16.
        seed: The papers use 1, 2 and 3.

    Raises:
        InvalidArgumentError: If `shots` is below 1.

    Source: CoOp (Zhou et al., IJCV 2022) with Dassl's sampling; see also the published index files of
        cross-modal adaptation (Lin et al., CVPR 2023), which follow the same rule.
    """
    if shots < 1:
        raise InvalidArgumentError(
            f"`shots` must be at least 1, but is {shots}. The papers use 1, 2, 4, 8 and 16."
        )
    generator = random.Random(seed)
    drawn = _draw(train, shots, generator)
    draw = FewShotDraw(train.name, shots, seed, drawn, validation=(), train_fingerprint=train.fingerprint())
    if validation is None:
        return draw
    drawn = _draw(validation, min(shots, VALIDATION_SHOTS), generator)
    return replace(draw, validation=drawn, validation_fingerprint=validation.fingerprint())


def few_shot(records: RecordSet[Classify], shots: int = 16, seed: int = 1) -> RecordSet[Classify]:
    """Return K records per class, drawn as in `draw_few_shot` from training records alone."""
    return records.select(draw_few_shot(records, shots=shots, seed=seed).train)


def base_to_new(records: RecordSet[Classify]) -> tuple[RecordSet[Classify], RecordSet[Classify]]:
    """Split by class: the first half (rounded up) of the sorted labels is base, the rest new.

    Labels of each half count from 0 again. Draw few shots before this, not after: the published base draws
    equal the draws over all classes.

    Source: CoCoOp (Zhou et al., CVPR 2022).
    """
    labels = sorted({record.label for record in records})
    middle = math.ceil(len(labels) / 2)
    return restrict_classes(records, labels[:middle]), restrict_classes(records, labels[middle:])


def restrict_classes(records: RecordSet[Classify], labels: Sequence[int]) -> RecordSet[Classify]:
    """Keep the records of some classes; label `labels[i]` becomes i.

    For domain shift to a data set with fewer classes (ImageNet-A and -R have 200), give the labels of those
    classes in their order there.

    Raises:
        InvalidArgumentError: If a label is given twice.
        UnknownNameError: If no record has a label of `labels`.
    """
    position = {label: index for index, label in enumerate(labels)}
    if len(position) != len(labels):
        raise InvalidArgumentError("`labels` must not repeat a class, but one stands there twice. Remove it.")
    present = {record.label for record in records}
    for label in labels:
        if label not in present:
            raise unknown_name(f"label of {records.name}", str(label), map(str, present))
    kept = [replace(record, label=position[record.label]) for record in records if record.label in position]
    return replace(records.with_records(kept), classes=())


def _draw(records: RecordSet[Classify], shots: int, generator: random.Random) -> tuple[int, ...]:
    by_label: dict[int, list[int]] = {}
    for index, record in enumerate(records):
        if not isinstance(record, Classify):
            raise InvalidArgumentError(
                f"`records` must be of type 'classify', but {records.name!r} holds {record.record_type!r}. "
                "Few-shot draws need classes."
            )
        by_label.setdefault(record.label, []).append(index)
    drawn: list[int] = []
    for indices in by_label.values():
        drawn.extend(generator.sample(indices, shots) if len(indices) >= shots else indices)
    return tuple(drawn)


def _same(records: RecordSet[Classify], fingerprint: str, what: str) -> None:
    if records.fingerprint() != fingerprint:
        raise StateMismatchError(
            f"`{what}` must be the records the draw was made from, but {records.name!r} ({records.split}) differs. Use "
            "the same data and options, or draw again."
        )
