import json

import pytest

from weft.data import MalformedRecordError, Retrieval, UnknownNameError, WeftDataError, load_dataset
from weft.data.testing import DatasetContract, image_bytes, write_tree, zip_bytes


def row(name, split="train", tones=()):
    names = {"en": name, "de": f"{name} auf deutsch"}
    return {
        "id": name,
        "file": f"{name}.png",
        "char": "x",
        "names": names,
        "tones": list(tones),
        "base": name[:4],
        "aliases": [],
        "keywords": ["k"],
        "split": split,
    }


ROWS = [row("wave"), row("wave_dark", tones=["dark"]), row("star", "test")]
LINES = "\n".join(map(json.dumps, ROWS))
IMAGES = {f"{r['file']}": image_bytes((10, 20, 30, 0)) for r in ROWS}


class TestNotoEmoji(DatasetContract):
    name = "noto_emoji"
    count = 2

    def files(self):
        return {"captions.jsonl": LINES, **{f"png72/{name}": data for name, data in IMAGES.items()}}

    def test_a_caption_keeps_tones_and_base(self, records):
        assert records[1].captions == ("wave_dark",)
        assert records[1].extra["tones"] == ["dark"]
        assert records[1].extra["base"] == "wave"
        assert records[1].language == "en"

    def test_transparent_pixels_lie_on_white_or_the_colour_asked_for(self, records):
        assert records[0].media.image().getpixel((0, 0)) == (255, 255, 255)
        assert records[0].media.image(background=(0, 0, 9)).getpixel((0, 0)) == (0, 0, 9)

    def test_several_languages_give_a_record_each(self, tmp_path):
        root = write_tree(tmp_path / "l", self.files())
        both = self.load(root, languages=["en", "de"])
        assert [record.id for record in both] == ["wave.en", "wave.de", "wave_dark.en", "wave_dark.de"]
        assert both[1].captions == ("wave auf deutsch",)
        assert self.load(root, languages="de")[0].id == "wave"

    def test_retrieval_pairs_share_the_image_between_languages(self, tmp_path):
        pairs = self.load(write_tree(tmp_path / "r", self.files()), languages=["en", "de"], task="retrieval")
        assert isinstance(pairs[0], Retrieval)
        assert pairs.record_type == "retrieval"
        assert pairs[0].media_id == pairs[1].media_id
        assert pairs[0].text_id != pairs[1].text_id

    def test_emoji_of_one_skin_tone_are_classes_of_five(self, tmp_path):
        tones = [["dark"], ["light", "dark"], [], ["medium-light"]]
        rows = [row(f"hand_{k}", tones=own) for k, own in enumerate(tones)]
        files = {f"png72/{r['file']}": image_bytes((10, 20, 30, 0)) for r in rows}
        root = write_tree(tmp_path / "t", {"captions.jsonl": "\n".join(map(json.dumps, rows)), **files})
        found = self.load(root, task="tone")
        assert [(record.class_name, record.label) for record in found] == [("dark", 4), ("medium-light", 1)]
        assert found.class_names == ["light", "medium-light", "medium", "medium-dark", "dark"]

    def test_a_skin_tone_that_there_is_none_of_is_named(self, tmp_path):
        rows = "\n".join(map(json.dumps, [row("hand", tones=["green"])]))
        root = write_tree(
            tmp_path / "t", {"png72/hand.png": image_bytes((1, 2, 3, 0)), "captions.jsonl": rows}
        )
        with pytest.raises(WeftDataError, match=r"`tones` must be of light, .*'green'"):
            self.load(root, task="tone")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"languages": ["en", "xx"]}, "language of noto_emoji: 'xx'"),
        ({"task": "captions"}, "task of noto_emoji: 'captions'. Did you mean 'caption'"),
    ],
)
def test_unknown_languages_and_tasks_are_refused(tmp_path, options, message):
    with pytest.raises(UnknownNameError) as caught:
        load_dataset("noto_emoji", tmp_path, **options)
    assert message in str(caught.value)


def test_a_language_that_a_row_lacks_is_named(tmp_path):
    root = write_tree(tmp_path, {"captions.jsonl": LINES, "png72.zip": zip_bytes(IMAGES)})
    with pytest.raises(MalformedRecordError, match="row 1: must have the field `fr`"):
        load_dataset("noto_emoji", root, languages="fr")


def test_the_real_files_parse_to_the_official_counts(realdata):
    root = realdata / "googlefonts+noto-emoji"
    counts = {split: len(load_dataset("noto_emoji", root, split)) for split in ("train", "val", "test")}
    assert counts == {"train": 2_782, "val": 234, "test": 527}
    test = load_dataset("noto_emoji", root, "test", languages=("en", "ar", "ja"), task="retrieval")
    assert len(test) == 3 * 527
    assert sum(1 for record in test if record.extra["tones"]) > 0
    assert test[0].media.image().size == (72, 72)
