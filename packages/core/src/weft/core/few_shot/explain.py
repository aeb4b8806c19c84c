"""Why a head predicts a class: the share of the class names, and the cached samples that voted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Votes(NamedTuple):
    """What every key adds for some rows.

    Attributes:
        labels: Class of every key, shape (keys,).
        origin: Training sample of every key, shape (keys,).
        votes: Part of the logit of the key's class, shape (rows, keys).
        affinities: Modality to affinities, each of shape (rows, keys).
    """

    labels: Tensor
    origin: Tensor
    votes: Tensor
    affinities: Mapping[str, Tensor]


@dataclass(frozen=True)
class Vote:
    """The vote of one cached sample for its class.

    Attributes:
        sample: Its position in the samples that the head was fitted on.
        label: Its class.
        vote: What it adds to the logit of that class.
        affinities: Modality to how near it is, usually 0 to 1.
    """

    sample: int
    label: int
    vote: float
    affinities: Mapping[str, float]


@dataclass(frozen=True)
class Explanation:
    """Why one row got its class.

    Attributes:
        predicted: The class.
        runner_up: The second best class.
        margin: Logit of the first minus that of the second.
        zero_shot: What the class names alone say: logit of the predicted class minus that of the runner-up.
        votes: The strongest votes for any class, strongest first; empty for heads without a cache.
    """

    predicted: int
    runner_up: int
    margin: float
    zero_shot: float
    votes: tuple[Vote, ...]

    def table(self, class_names: Sequence[str] | None = None) -> str:
        """The explanation as plain text, one vote per line, with class names if there are any."""

        def name(label: int) -> str:
            return f"class {label}" if class_names is None else class_names[label]

        lines = [
            f"predicted: {name(self.predicted)}; runner-up: {name(self.runner_up)}; margin "
            f"{self.margin:.3f}, of which the class names alone give {self.zero_shot:.3f}"
        ]
        if self.votes:
            modalities = list(self.votes[0].affinities)
            lines.append("sample  vote     " + "  ".join(f"{word:>8}" for word in modalities) + "  class")
        for vote in self.votes:
            near = "  ".join(f"{vote.affinities[word]:8.4f}" for word in vote.affinities)
            lines.append(f"{vote.sample:6d}  {vote.vote:7.4f}  {near}  {name(vote.label)}")
        return "\n".join(lines)


def explanations(logits: Tensor, zero_shot: Tensor, votes: Votes | None, top: int) -> list[Explanation]:
    """Explanations of some rows, each with at most `top` votes; logits have the shape (rows, classes)."""
    best = logits.topk(min(2, logits.shape[1]), dim=1).indices
    return [
        Explanation(
            predicted=first,
            runner_up=second,
            margin=float(logits[row, first] - logits[row, second]),
            zero_shot=float(zero_shot[row, first] - zero_shot[row, second]),
            votes=() if votes is None else _strongest(votes, row, top),
        )
        for row, (first, second) in enumerate(zip(best[:, 0].tolist(), best[:, -1].tolist(), strict=True))
    ]


def _strongest(votes: Votes, row: int, top: int) -> tuple[Vote, ...]:
    best = votes.votes[row].topk(min(top, votes.votes.shape[1]))
    return tuple(
        Vote(
            sample=int(votes.origin[key]),
            label=int(votes.labels[key]),
            vote=float(value),
            affinities={word: float(matrix[row, key]) for word, matrix in votes.affinities.items()},
        )
        for value, key in zip(best.values, best.indices, strict=True)
    )
