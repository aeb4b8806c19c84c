"""A tiny BLIP, pretrained on still images and frozen, learns to find films, and with units of time their order too."""

import copy
import logging

import pytest
import torch

from weft.core import attach
from weft.train.testing.rendered_films import FRAMES, film_scores, rendered_films
from weft.train.testing.rendered_pairs import pretrained_blip, train

METHODS = [
    {"method": "uniadapter", "bottleneck_size": 48, "scale": 1.0, "train_full": ["projector", "head"]},
    {"method": "st_adapter", "frames": FRAMES, "bottleneck_size": 48, "blocks": ["attention", "ffn"]},
]


def test_films_and_their_reverses_have_the_same_frames_and_captions_of_their_own():
    films = rendered_films("shown", 12, distinct=True)
    assert len(set(films.captions)) == 12
    for row in range(0, 12, 2):
        assert torch.equal(films.pixel_values[row].flip(0), films.pixel_values[row + 1])
        (*what, line, start, end), told = films.captions[row].split(), films.captions[row + 1]
        assert told.split() == [*what, line, end, start]


@pytest.mark.slow
def test_uniadapter_beside_st_adapter_finds_held_out_films_and_tells_them_from_their_reverses():
    held_out = rendered_films("film-test", 100, distinct=True)
    films = rendered_films("film", 4000, avoid=held_out.captions)
    backbone, _ = pretrained_blip(0, steps=450)
    frozen = film_scores(attach(copy.deepcopy(backbone), {"method": "frozen"}), held_out)
    torch.manual_seed(0)
    adapted = attach(copy.deepcopy(backbone), METHODS)
    train(adapted, films, steps=300, learning_rate=1e-2, together=2)
    found = film_scores(adapted, held_out)
    logging.getLogger(__name__).info("frozen %s, adapted %s", frozen, found)
    for way in ("i2t", "t2i"):
        assert frozen[f"similarity {way} R@1"] < 20
        assert found[f"similarity {way} R@1"] >= 70
        assert found[f"similarity {way} order"] >= 85, "chance, and all that a bag of frames allows, is 50"
