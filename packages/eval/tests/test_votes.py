from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from weft.core.few_shot import TipAdapter, XMAdapter, XMAdapterConfig, ZeroShotHead
from weft.eval.errors import ScoreInputError
from weft.eval.report.votes import votes_picture


def some() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = functional.normalize(torch.randn(3, 8, generator=generator), dim=-1)
    features = functional.normalize(torch.randn(6, 8, generator=generator), dim=-1)
    return weights, features, torch.tensor([0, 0, 1, 1, 2, 2])


def squares(colours: list[tuple[int, int, int]]) -> list[Image.Image]:
    return [Image.new("RGB", (20, 20), colour) for colour in colours]


@pytest.mark.parametrize("kind", ["tip", "xm"])
def test_voters_stand_beside_the_image_strongest_first(tmp_path: Path, kind: str) -> None:
    weights, features, labels = some()
    head = TipAdapter(weights) if kind == "tip" else XMAdapter(weights, XMAdapterConfig(epochs=0))
    head.fit(features, labels)
    why = head.explain(features[:2], top=2)
    cached = squares([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)])
    path = votes_picture(
        squares([(9, 99, 9), (99, 9, 99)]), why, cached, ["a", "b", "c"], tmp_path / "votes.png"
    )
    drawn = np.asarray(Image.open(path).convert("RGB"))
    shown = {tuple(colour) for colour in drawn.reshape(-1, 3).tolist()}
    voters = {vote.sample for one in why for vote in one.votes}
    for sample, image in enumerate(cached):
        assert (image.getpixel((0, 0)) in shown) == (sample in voters)
    top = drawn[: drawn.shape[0] // 2]
    places = [
        np.argwhere((top == np.array(cached[vote.sample].getpixel((0, 0)))).all(-1))[:, 1].mean()
        for vote in why[0].votes
    ]
    assert places == sorted(places)


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    weights, features, labels = some()
    why = ZeroShotHead(weights).fit(features, labels).explain(features[:1])
    with pytest.raises(ScoreInputError, match="`explanations` must hold votes, but hold none"):
        votes_picture(squares([(0, 0, 0)]), why, [], ["a", "b", "c"], tmp_path / "x.png")
    with pytest.raises(ScoreInputError, match=r"must be one per image \(2, at least one\), but are 1"):
        votes_picture(squares([(0, 0, 0)] * 2), why, [], ["a", "b", "c"], tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
