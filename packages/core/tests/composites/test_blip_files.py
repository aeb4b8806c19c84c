"""Files of strangers given for BLIP's: told, never run."""

import pickle

import pytest
import torch

from weft.core.composites import load_blip
from weft.core.errors import CheckpointError
from weft.core.testing.vision_language import CASES


class Caught:
    """What a pickle would run."""

    ran = False

    def __reduce__(self):
        return setattr, (Caught, "ran", True)


def test_files_of_strangers_are_told_and_never_run(tmp_path):
    model = CASES["blip_retrieval"]()[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    good = tmp_path / "good.pth"
    torch.save({"model": {"visual_encoder.cls_token": torch.zeros(1, 1, 16)}}, good)
    whole = good.read_bytes()
    contents = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"<html>not found</html>",
        "foreign": pickle.dumps({"visual_encoder.a": Caught()}),
        "numbers": pickle.dumps([1, {2: 3}]),
        "stack": b"\x80\x04.",
        "memo": b"\x80\x02h\x05.",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=r"`source` must "):
            load_blip(model, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"cannot be read: .*No such file"):
        load_blip(model, tmp_path / "nowhere.pth")
    assert not Caught.ran
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "visual_encoder.cls_token",
            torch.full((1, 1, 16), float("nan")),
            r"cls_token is not finite in 16 of 16",
        ),
        ("visual_encoder.cls_token", torch.zeros(1, 1, 16, dtype=torch.complex64), "cls_token is of complex"),
        ("visual_encoder.cls_token", "text", "cls_token is not a plain tensor but str"),
        ("visual_encoder.pos_embed", torch.zeros(7), r"position_embedding is \(7,\) and should be"),
        (3, torch.zeros(1), "has the name 3"),
    ],
    ids=["nan", "complex", "text", "positions", "a number for a name"],
)
def test_tensors_that_no_training_leaves_are_refused(name, value, message):
    with pytest.raises(CheckpointError, match=message):
        load_blip(CASES["blip_retrieval"]()[0], {name: value})
