"""Rendered films and their reverses: the same frames, other captions."""

import torch

from weft.train.testing.rendered_films import rendered_films


def test_films_and_their_reverses_have_the_same_frames_and_captions_of_their_own():
    films = rendered_films("shown", 12, distinct=True)
    assert len(set(films.captions)) == 12
    for row in range(0, 12, 2):
        assert torch.equal(films.pixel_values[row].flip(0), films.pixel_values[row + 1])
        (*what, line, start, end), told = films.captions[row].split(), films.captions[row + 1]
        assert told.split() == [*what, line, end, start]
