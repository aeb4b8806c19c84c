"""Conversations that show videos beside images."""

import json

from weft.data import load_dataset
from weft.data.shards.convert import convert
from weft.data.testing import image_bytes, write_tree

PATHS = ["images/a.png"]


def said(by, text):
    return {"role": by, "content": text}


def loaded(folder, rows):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write_tree(folder, {"images/a.png": image_bytes((200, 0, 0), (60, 40)), "train.jsonl": lines})
    return load_dataset("conversations", folder, "train")


def shape(record):
    """Roles and parts, media by their names."""
    return [
        (role, *(part if isinstance(part, str) else part.path for part in parts))
        for role, parts in record.turns
    ]


def test_videos_stand_where_they_are_marked_or_typed_among_images(tmp_path):
    typed = [{"type": "video", "video": "b.mp4"}, {"type": "text", "text": "and "}, {"type": "image"}]
    rows = [
        {
            "messages": [said("user", "<video>\nwhat <image>?"), said("assistant", "y")],
            "images": PATHS,
            "videos": "a.mp4",
        },
        {"messages": [said("user", typed), said("assistant", "y")], "images": PATHS},
        {"prompt": "what does <video> mean?", "completion": "a tag"},
    ]
    records = loaded(tmp_path / "own", rows)
    assert [shape(record)[0] for record in records] == [
        ("user", "a.mp4", "what ", "images/a.png", "?"),
        ("user", "b.mp4", "and ", "images/a.png"),
        ("user", "what does <video> mean?"),
    ]
    assert [[ref.kind for ref in record.images] for record in records] == [["video", "image"]] * 2 + [[]]
    assert records[0].summary() == "<video>what <image>? -> y"
    write_tree(tmp_path / "own", {"a.mp4": b"a", "b.mp4": b"b"})
    convert(records, tmp_path / "shards" / "train", rows_per_shard=2)
    again = load_dataset("shards", tmp_path / "shards", "train")
    assert [[ref.kind for ref in record.images] for record in again] == [["video", "image"]] * 2 + [[]]
