import json

import pytest

from weft.data import load_dataset
from weft.data.datasets.easy_vqa import NAMES
from weft.data.testing import DatasetContract, image_bytes

QUESTIONS = [
    ["what is the red shape?", "circle", 7],
    ["is there not a teal shape in the image?", "no", 2],
    ["does the image contain a circle?", "no", 2],
    ["what color is the triangle?", "gray", 5],
    ["is no triangle present?", "no", 2],
    ["is there a blue shape?", "yes", 3],
    ["is there not a circle?", "yes", 3],
]


class TestEasyVQAShapes(DatasetContract):
    name = "easy_vqa_shapes"
    count = 3

    def files(self):
        images = {f"data/train/images/{k}.png": image_bytes() for k in (2, 3, 5, 7)}
        return {"data/train/questions.json": json.dumps(QUESTIONS), **images}

    def test_what_questions_and_answers_say_together_is_the_class(self, records):
        found = [(record.id, record.class_name) for record in records]
        assert found == [
            ("train-7", "red circle"),
            ("train-2", "teal triangle"),
            ("train-5", "gray triangle"),
        ]
        assert [NAMES[record.label] for record in records] == [name for _, name in found]


def test_the_real_images_have_the_colour_of_their_class(realdata):
    test = load_dataset("easy_vqa_shapes", realdata / "vzhou842+easy-VQA", "test")
    assert len(test) == 880
    assert {record.label for record in test} == set(range(24))
    colours = {"red": (0, 1), "green": (1, 2), "blue": (2, 0)}
    for record in test[::20]:
        colour = record.class_name.split()[0]
        if colour in colours:
            more, less = colours[colour]
            middle = record.image.image().convert("RGB").getcolors(4096)
            shape = min((pixel for _, pixel in middle), key=lambda pixel: pixel[less] - pixel[more])
            assert shape[more] > shape[less] + 60, record.id


@pytest.mark.slow
def test_the_real_training_images_are_counted(realdata):
    assert len(load_dataset("easy_vqa_shapes", realdata / "vzhou842+easy-VQA", "train")) == 3_542
