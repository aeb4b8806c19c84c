"""Conversations in the forms that people have: LLaVA, sharegpt, messages with images, typed parts, prompts."""

import base64
import io
import json
from typing import ClassVar

import pytest

from weft.data import (
    Conversation,
    InvalidArgumentError,
    MalformedRecordError,
    UnknownNameError,
    UnsafePathError,
    load_dataset,
)
from weft.data.checks import check_dataset
from weft.data.records.contact_sheet import contact_sheet
from weft.data.shards.convert import convert
from weft.data.testing import DatasetContract, image_bytes, write_tree

A, B = image_bytes((200, 0, 0), (60, 40)), image_bytes((0, 200, 0), (30, 96))
IMAGES = {"images/a.png": A, "images/b.png": B}
PATHS = ["images/a.png", "images/b.png"]


def said(by, text):
    return {"role": by, "content": text}


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def loaded(folder, rows, ending="jsonl", **options):
    """Conversations of rows that are written beside the images."""
    if ending == "parquet":
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        sink = io.BytesIO()
        parquet.write_table(arrow.Table.from_pylist(rows), sink)
        content = sink.getvalue()
    else:
        content = json.dumps(rows) if ending == "json" else jsonl(*rows)
    write_tree(folder, {**IMAGES, f"train.{ending}": content})
    return load_dataset("conversations", folder, "train", **options)


def shape(record):
    """Roles and parts, images by their names."""
    return [
        (role, *(part if isinstance(part, str) else part.path for part in parts))
        for role, parts in record.turns
    ]


SYSTEM = said("system", "be short")
TYPED = [{"type": "image", "text": None}, {"type": "text", "text": "what colour?"}]
ONE = [("user", "images/a.png", "what colour?"), ("assistant", "red")]
FORMS = {
    "llava": {
        "image": "images/a.png",
        "conversations": [
            {"from": "human", "value": "<image>\nwhat colour?"},
            {"from": "gpt", "value": "red"},
        ],
    },
    "image behind the words": {
        "image": ["images/a.png"],
        "conversations": [
            {"from": "human", "value": "<image>what colour?"},
            {"from": "gpt", "value": "red"},
        ],
    },
    "messages and images": {
        "messages": [said("user", "<image>what colour?"), said("assistant", "red")],
        "images": ["images/a.png"],
    },
    "typed": {
        "messages": [said("user", TYPED), said("assistant", [{"type": "text", "text": "red"}])],
        "images": ["images/a.png"],
    },
    "typed with the image inside": {
        "messages": [
            said(
                "user", [{"type": "image", "image": "images/a.png"}, {"type": "text", "text": "what colour?"}]
            ),
            said("assistant", [{"text": "red"}]),
        ]
    },
    "url inside": {
        "messages": [
            said(
                "user",
                [{"type": "image_url", "image_url": {"url": "images/a.png"}}, {"text": "what colour?"}],
            ),
            said("assistant", [{"text": "red"}]),
        ]
    },
    "prompt and completion in messages": {
        "prompt": [said("user", TYPED)],
        "completion": [said("assistant", [{"type": "text", "text": "red"}])],
        "images": ["images/a.png"],
    },
    "prompt and completion in words": {
        "prompt": "<image>what colour?",
        "completion": "red",
        "images": ["images/a.png"],
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet"])
def test_every_form_gives_the_same_conversation(tmp_path, form, ending):
    (record,) = loaded(tmp_path, [FORMS[form]], ending)
    assert shape(record) == ONE
    assert (record.answer, record.learned, record.asked) == ("red", (1,), "what colour?")
    assert record.images[0].image().size == (60, 40)
    assert record.id == "train-1"


def test_images_stand_where_they_are_written_and_rows_differ_in_number(tmp_path):
    rows = [
        {
            "messages": [said("user", "left <image> and\n<image>: the same?"), said("assistant", "no")],
            "images": PATHS,
        },
        {"id": 7, "messages": [said("user", "two and two?"), said("assistant", 4)]},
        {"messages": [said("user", "what?\n<image>"), said("assistant", "red")], "images": PATHS[:1]},
        {"messages": [said("user", "<image>\n<image>\nboth?"), said("assistant", "yes")], "images": PATHS},
        {"messages": [said("user", "none?"), said("assistant", "none")], "images": []},
    ]
    found = loaded(tmp_path, rows)
    assert [shape(record)[0][1:] for record in found] == [
        ("left ", PATHS[0], " and\n", PATHS[1], ": the same?"),
        ("two and two?",),
        ("what?", PATHS[0]),
        (*PATHS, "both?"),
        ("none?",),
    ]
    assert (found[1].id, found[1].answer) == ("7", "4")
    assert [len(record.media_refs()) for record in found] == [2, 0, 1, 2, 0]


def test_several_turns_are_answers_to_learn_but_for_those_of_a_prompt(tmp_path):
    turns = [
        SYSTEM,
        said("user", "<image>what?"),
        said("assistant", "a dot"),
        said("user", "red?"),
        {**said("assistant", "yes"), "weight": 0},
        said("user", "<image>now?"),
        said("assistant", "no"),
    ]
    rows = [
        {"messages": turns, "images": PATHS},
        {"system": "be short", "prompt": turns[1:6], "completion": turns[6:], "images": PATHS},
    ]
    whole, completed = loaded(tmp_path, rows)
    assert whole.learned == (2, 6)
    assert completed.learned == (6,)
    assert shape(whole) == shape(completed)
    assert shape(whole)[0] == ("system", "be short")
    assert whole.summary() == "be short -> <image>what? -> a dot -> red? -> yes -> <image>now? -> no"


def test_hidden_answers_are_none(tmp_path):
    asked = said("user", "why?")
    rows = [
        {"messages": [asked]},
        {"messages": [asked, said("assistant", None)]},
        {"prompt": "why?"},
        {"prompt": [asked], "completion": None},
    ]
    for record in loaded(tmp_path, rows):
        assert (record.answer, record.references(), record.learned) == (None, (), ())
        assert record.summary() == "why? -> ?"


def test_other_columns_are_named_and_what_is_left_is_kept(tmp_path):
    row = {"talk": [{"from": "human", "value": "<image>x"}, {"from": "gpt", "value": "y"}], "pics": ["a.png"]}
    columns = {"messages": "talk", "images": "pics"}
    (record,) = loaded(tmp_path, [{**row, "source": "web", "n": 3}], columns=columns, media_root="images")
    assert record.images[0].path == "images/a.png"
    assert record.extra == {"source": "web", "n": 3}
    with pytest.raises(UnknownNameError, match=r"part of a conversation in `columns`: 'image'.*images"):
        loaded(tmp_path, [row], columns={"image": "pics"})


def test_images_may_lie_in_the_rows(tmp_path):
    coded = "data:image/png;base64," + base64.b64encode(B).decode()
    turn = [
        {"type": "image_url", "image_url": {"url": coded}},
        {"type": "image"},
        {"type": "text", "text": "x"},
    ]
    rows = [{"messages": [said("user", turn), said("assistant", "y")], "images": ["images/a.png"]}]
    (record,) = loaded(tmp_path, rows)
    assert [ref.image().size for ref in record.images] == [(30, 96), (60, 40)]
    rows = [{"prompt": "<image>x", "completion": "y", "images": [{"bytes": A, "path": None}]}]
    (record,) = loaded(tmp_path / "own", rows, "parquet")
    assert record.images[0].read() == A


BAD = {
    "one `<image>` for each image, but has 0 for 2 in `images`": {
        "prompt": "x",
        "completion": "y",
        "images": PATHS,
    },
    "one `<image>` for each image, but has 2 for 1": {
        "prompt": "<image><image>x",
        "completion": "y",
        "images": PATHS[:1],
    },
    "one `<image>` for each image, but has 1 for 0": {"prompt": "<image>x", "completion": "y"},
    "must have a conversation in one of messages, conversations, prompt, but has only text": {"text": "x"},
    "turn 2 of `messages` must say something, but is empty": {
        "messages": [said("user", "x"), said("assistant", " ")]
    },
    "turn 1 of `messages` must be of system, .*, but is of 'tool'": {"messages": [said("tool", "x")]},
    "must be text, as answers are, but has an image": {
        "messages": [said("user", "x"), said("assistant", "<image>")],
        "images": PATHS[:1],
    },
    "one after the other.*but are of user, user": {"messages": [said("user", "x"), said("user", "y")]},
    "but are of assistant": {"messages": [said("assistant", "y")]},
    "but are of nobody": {"messages": []},
    "but are of system, system, user": {"system": "a", "messages": [SYSTEM, said("user", "y")]},
    "must show images and videos alone, but has `audios`": {"prompt": "x", "audios": ["a.wav"]},
    "must have one `<video>` for each video, but has 1 for 2 in `videos`": {
        "prompt": "<video>x",
        "videos": ["a.mp4", "b.mp4"],
    },
    "parts of type text, image or video, but holds one of 'audio'": {
        "messages": [said("user", [{"type": "audio"}])]
    },
    "`messages` must be a list": {"messages": "x"},
    "must be an object with `role` and `content`": {"messages": ["x"]},
    "must be text or a number.* but is True": {"prompt": "x", "completion": True},
    "must have weight|must be learned, as the last answer is": {
        "messages": [said("user", "x"), {**said("assistant", "y"), "weight": 0}]
    },
    "download it first": {"prompt": "<image>x", "images": ["https://example.org/a.png"]},
    "must be written in base64": {"prompt": "<image>x", "images": ["data:image/png;base64,???"]},
    "`images` must be a path, bytes": {"prompt": "<image>x", "images": [3]},
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_row_is_named_with_its_file(tmp_path, message):
    good = {"prompt": "x", "completion": "y"}
    with pytest.raises(MalformedRecordError, match=rf"(?s)train\.jsonl, row 2: .*(?:{message})"):
        loaded(tmp_path, [good, BAD[message]])
    kept = load_dataset("conversations", tmp_path, "train", on_error="skip")
    assert (len(kept), len(kept.skipped)) == (1, 1)


def test_a_path_that_leaves_the_folder_is_named_with_file_and_row(tmp_path):
    with pytest.raises(UnsafePathError, match=r"train\.jsonl, row 1: `path` must stay inside"):
        loaded(tmp_path, [{"prompt": "<image>x", "images": ["/etc/a.png"]}])


def test_a_check_names_absent_images_and_a_sheet_shows_all_of_a_row(tmp_path):
    rows = [
        {"prompt": "<image><image>x", "completion": "y", "images": PATHS},
        {"prompt": "z", "completion": "y"},
        {"prompt": "<image>x", "completion": "y", "images": ["images/gone.png"]},
    ]
    records = loaded(tmp_path, rows)
    (split,) = check_dataset("conversations", tmp_path).splits
    assert (split.split, split.found, split.media_checked) == ("train", 3, 3)
    assert [problem for problem in split.problems if "gone.png" in problem] == list(split.problems)
    assert contact_sheet(records[:2]).width > 300


def test_shards_give_the_conversations_back_also_where_the_first_are_texts_alone(tmp_path):
    rows = [
        {"prompt": "no image", "completion": "y"},
        {"prompt": "left <image> right <image>", "completion": "y", "images": PATHS},
        {
            "messages": [said("user", "x"), said("assistant", "y"), said("user", "<image>z")],
            "images": PATHS[1:],
        },
    ]
    original = loaded(tmp_path / "own", rows)
    convert(original, tmp_path / "shards", rows_per_shard=2, group_rows=1)
    for streaming in (False, True):
        again = load_dataset("shards", tmp_path / "shards", "train", streaming=streaming)
        for one, other in zip(original, again, strict=True):
            assert one.without_media() == other.without_media()
            assert [ref.read() for ref in one.images] == [ref.read() for ref in other.images]


def dataset_of(rows):
    """Rows of the library `datasets`, with images inside of a list, as TRL's data sets on the hub have them."""
    import datasets

    part = {"type": datasets.Value("string"), "text": datasets.Value("string")}
    features = datasets.Features(
        messages=[{"role": datasets.Value("string"), "content": [part]}], images=[datasets.Image()]
    )
    return datasets.Dataset.from_list(rows, features=features)


HUB = [
    {
        "messages": [said("user", TYPED[:1] * count + TYPED[1:]), said("assistant", TYPED[1:])],
        "images": [{"bytes": data, "path": None} for data in (A, B)[:count]],
    }
    for count in (1, 2, 0)
]


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Three folders of the same rows: all splits saved, one saved, and numbered Parquet files."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = dataset_of(HUB)
    datasets.DatasetDict(train=rows, test=rows.select([0])).save_to_disk(str(tmp_path / "all"))
    rows.save_to_disk(str(tmp_path / "one"))
    (tmp_path / "numbered" / "data").mkdir(parents=True)
    rows.to_parquet(str(tmp_path / "numbered" / "data" / "train-00000-of-00001.parquet"))
    return tmp_path


@pytest.mark.parametrize("form", ["all", "one", "numbered"])
@pytest.mark.parametrize("streaming", [False, True])
def test_saved_data_sets_and_those_in_the_hubs_format_are_read_and_streamed(saved, form, streaming):
    records = load_dataset("conversations", saved / form, "train", streaming=streaming)
    assert [len(record.images) for record in records] == [1, 2, 0]
    assert [ref.read() for ref in records[1].images] == [A, B]
    assert records[1].parts == ((None, None, "what colour?"), ("what colour?",))
    if form == "all":
        assert len(load_dataset("conversations", saved / form, "test")) == 1
        with pytest.raises(UnknownNameError, match=r"split of .*'val'.*Known: test, train"):
            load_dataset("conversations", saved / form, "val")
    names = [split.split for split in check_dataset("conversations", saved / form).splits]
    assert names == (["train", "test"] if form == "all" else ["train"])


def test_files_are_not_streamed(tmp_path):
    with pytest.raises(InvalidArgumentError, match="`streaming` must be left out of conversations in a file"):
        loaded(tmp_path, [FORMS["typed"]], streaming=True)


def test_tables_and_the_hub_take_conversations_too(tmp_path):
    write_tree(tmp_path, {**IMAGES, "train.csv": "q,a,image\n<image>what?,red,images/a.png\n"})
    columns = {"prompt": "q", "completion": "a"}
    (record,) = load_dataset("table", tmp_path, "train", record="conversation", columns=columns)
    assert shape(record) == [("user", "images/a.png", "what?"), ("assistant", "red")]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"roles": ("user", "user"), "parts": (("a",), ("b",))}, "one after the other"),
        ({"roles": ("user",), "parts": ()}, "one after the other"),
        ({"roles": ("user",), "parts": ((None,),)}, "there are 1 for 0"),
        ({"roles": ("user",), "parts": (("a",),), "learned": (0,)}, "`learned` must be places of answers"),
    ],
)
def test_a_record_is_whole_or_refused(fields, message):
    with pytest.raises(InvalidArgumentError, match=message):
        Conversation(id="1", **fields)


class TestConversations(DatasetContract):
    name = "conversations"
    count = 2
    options: ClassVar = {"file": "llava.json"}

    def files(self):
        rows = [FORMS["llava"], {**FORMS["llava"], "image": "images/b.png"}]
        return {**IMAGES, "llava.json": json.dumps(rows)}
