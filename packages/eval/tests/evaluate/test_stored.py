import numpy as np
import pytest
import torch

from weft.data import Caption, MediaRef, VideoMC
from weft.data.features.index import FeatureKey
from weft.data.features.store import FeatureStore
from weft.data.features.write import write_features
from weft.data.sources.folders import FolderStore
from weft.eval.errors import ScoreInputError
from weft.eval.evaluate.inputs import TextRules
from weft.eval.evaluate.kinds import kind_of
from weft.eval.evaluate.scoring import reference, score
from weft.eval.evaluate.stored import fit_length, stored_features

KEY = FeatureKey("encoder", "weights", "transform")


def ref(path: str, **span: float) -> MediaRef:
    return MediaRef(path, FolderStore("nowhere"), "video" if span else "image", **span)


def store(tmp_path, name: str, items: dict[str, list[list[float]]], *, ragged: bool = False) -> FeatureStore:
    arrays = ((key, np.array(value, np.float16)) for key, value in items.items())
    return write_features(tmp_path / name, arrays, KEY, ragged=ragged)


def test_the_path_comes_before_the_name_and_the_first_store_before_the_second(tmp_path):
    one = store(tmp_path, "one", {"cat": [[1.0]], "deep/cat.jpg": [[2.0]]})
    two = store(tmp_path, "two", {"cat": [[3.0]], "dog": [[4.0]]})
    images = [ref("cat.png"), ref("deep/cat.jpg"), ref("dog.jpg")]
    found = stored_features([([one, two], images)], tokens=1)
    assert found([[image] for image in images])["visual_features"].flatten().tolist() == [1.0, 2.0, 4.0]


def test_each_task_is_looked_up_in_its_own_stores(tmp_path):
    one, two = store(tmp_path, "one", {"1": [[1.0]]}), store(tmp_path, "two", {"1": [[2.0]]})
    first, second = ref("1.png"), ref("images/1.png")
    found = stored_features([([one], [first]), ([two], [second])], tokens=1)
    assert found([[first, second]])["visual_features"].shape == (1, 2, 1, 1)
    assert found([[first], [second]])["visual_features"].flatten().tolist() == [1.0, 2.0]


def test_a_name_that_two_files_have_is_refused_and_spans_of_one_are_not(tmp_path):
    one = store(tmp_path, "one", {"0": [[1.0]], "v": [[2.0]]})
    with pytest.raises(
        ScoreInputError, match=r"goes by names, and nowhere/train/0.png and nowhere/test/0.png have"
    ):
        stored_features([([one], [ref("train/0.png"), ref("test/0.png")])], tokens=1)
    spans = [ref("v.mp4", start=0.0), ref("v.mp4", start=1.0)]
    assert (
        stored_features([([one], spans)], tokens=1)([spans])["visual_features"].flatten().tolist()
        == [2.0] * 2
    )


def test_extracted_features_are_found_by_the_picture_not_by_its_name(tmp_path):
    red, blue = (MediaRef.from_bytes(content, "row-1") for content in (b"red", b"blue"))
    items = [(red.identity, np.ones((1, 1))), (blue.identity, np.zeros((1, 1)))]
    one = write_features(tmp_path / "one", items, KEY, by="identity")
    found = stored_features([([one], [red, blue])], tokens=1)
    assert found([[blue, red]])["visual_features"].flatten().tolist() == [0.0, 1.0]
    with pytest.raises(ScoreInputError, match=r"but 2 have none in .*'gone.png', 'row-2'"):
        stored_features([([one], [ref("gone.png"), MediaRef.from_bytes(b"green", "row-2")])], tokens=1)


def test_missing_features_are_counted_once_each(tmp_path):
    one = store(tmp_path, "one", {"1": [[1.0]]})
    with pytest.raises(ScoreInputError, match=r"but 2 have none in .*one: 'b.png', 'c.png'"):
        stored_features([([one], [ref("1.png"), ref("b.png"), ref("c.png"), ref("b.png")])], tokens=1)


def test_frames_are_padded_with_zeros_or_pooled_over_time(tmp_path):
    short, long = torch.tensor([[1.0], [2.0]]), torch.arange(6.0)[:, None]
    assert fit_length(short, 3).flatten().tolist() == [1.0, 2.0, 0.0]
    assert fit_length(long, 3).flatten().tolist() == [1.0, 3.0, 5.0]
    ragged = store(tmp_path, "r", {"a": short.tolist(), "b": long.tolist()}, ragged=True)
    clips = [ref("a.mp4", start=0.0), ref("b.mp4", start=1.0)]
    found = stored_features([([ragged], clips)], tokens=3)
    assert found([[clip] for clip in clips])["visual_features"].shape == (2, 1, 3, 1)


def choice(answer: int | None) -> VideoMC:
    return VideoMC(
        id=f"{answer}",
        video=ref("v.mp4", start=1.5, end=2.5),
        media_id="v",
        question="Who is it?",
        options=("Ann. ", "Bob"),
        answer=answer,
        subtitles="A : hi",
    )


def test_a_choice_is_written_as_vl_adapter_writes_it():
    text = kind_of([choice(1)]).text(choice(1))
    assert text == "[Subs] A : hi [Q] Who is it? [TS] (1.5-2.5) [Choices] a0: Ann. a1: Bob."
    assert TextRules(prompt="tvqa: ", prompt_at="end").written(text).endswith("a1: Bob. tvqa: ")


def test_a_choice_counts_only_if_it_is_exactly_the_option():
    records = [choice(0), choice(1)]
    assert score("multiple_choice", {"0": "a0", "1": "a0"}, records).scores == {"accuracy": 50.0}
    assert score("multiple_choice", {"0": "0", "1": "a1."}, records).scores == {"accuracy": 0.0}
    assert [reference(record) for record in (choice(1), choice(None))] == ["a1", ""]


def test_a_caption_of_a_video_reads_what_is_said_and_an_image_reads_nothing():
    clip = Caption(id="1", media=ref("v.mp4", start=0.5, end=2.0), media_id="1", subtitles="A : hi")
    still = Caption(id="2", media=ref("i.png"), media_id="2")
    assert kind_of([clip]).text(clip) == "[Subs] A : hi [TS] (0.5-2.0)"
    assert kind_of([still]).text(still) == ""
    assert TextRules(prompt="tvc: ", prompt_at="end").written("") == "tvc: "
