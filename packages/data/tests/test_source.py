import gzip
import json

import pytest

from weft.data import ImageQA, MediaRef
from weft.data.errors import CorruptMediaError, MalformedRecordError, MissingFileError
from weft.data.records.rows import Row
from weft.data.records.source import Source, StoredFile
from weft.data.sources.opening import open_store
from weft.data.testing import image_bytes, write_tree, zip_bytes


def source(root, **changes):
    return Source("demo", open_store(root), ("", "inner"), "Ask a friend.", **changes)


def test_the_first_existing_candidate_wins_also_packed(tmp_path):
    write_tree(tmp_path, {"inner/a.json.gz": gzip.compress(b'{"x": 1}')})
    found = source(tmp_path).find("b.json", "a.json")
    assert found.path == "inner/a.json.gz"
    assert found.json() == {"x": 1}


def test_every_path_tried_is_named_with_the_remedy(tmp_path):
    with pytest.raises(MissingFileError) as caught:
        source(tmp_path).find("a.json", "b.json")
    for part in ("a.json", "inner/a.json", "b.json", "inner/b.json", "Ask a friend."):
        assert part in str(caught.value)


def test_cut_gzip_is_named(tmp_path):
    write_tree(tmp_path, {"a.json.gz": gzip.compress(b"x" * 1000)[:20]})
    with pytest.raises(CorruptMediaError, match="not a whole gzip file"):
        source(tmp_path).find("a.json").read()


def test_cut_json_is_named_with_its_line(tmp_path):
    write_tree(tmp_path, {"a.json": '[\n{"x": 1},\n{"x":'})
    with pytest.raises(MalformedRecordError, match="line 3"):
        source(tmp_path).find("a.json").json()


def test_text_that_is_not_utf8_is_named(tmp_path):
    write_tree(tmp_path, {"a.txt": b"\xff\xfe\xfa"})
    with pytest.raises(MalformedRecordError, match="must be UTF-8"):
        StoredFile(open_store(tmp_path), "a.txt").text()


def test_media_are_found_in_a_folder_or_an_archive_with_any_inner_prefix(tmp_path):
    picture = image_bytes()
    write_tree(tmp_path / "f", {"inner/train/images/0.png": picture})
    assert source(tmp_path / "f").media(["train/images"], probe="0.png").ref("0.png").read() == picture
    for number, prefix in enumerate(("train/images/", "images/", "")):
        root = write_tree(
            tmp_path / f"z{number}", {"train/images.zip": zip_bytes({f"{prefix}0.png": picture})}
        )
        folder = source(root).media(["train/images"], archives=["train/images.zip"], probe="0.png")
        assert folder.ref("0.png").read() == picture
        assert folder.names() == ["0.png"]


def test_absent_media_stop_the_loading_unless_waived(tmp_path):
    write_tree(tmp_path, {"images.zip": zip_bytes({"other.png": b""})})
    with pytest.raises(MissingFileError, match="must hold the images"):
        source(tmp_path).media(["images"], archives=["images.zip"], probe="0.png")
    waived = source(tmp_path, require_media=False).media(["images"], probe="0.png")
    with pytest.raises(MissingFileError, match="File not found"):
        waived.ref("0.png").read()


def test_find_all_lists_files_of_the_first_base_that_has_some(tmp_path):
    write_tree(tmp_path, {"inner/q/b_1.json": "1", "inner/q/b_0.json": "0", "inner/q/x.txt": ""})
    found = source(tmp_path).find_all("q", lambda name: name.endswith(".json"))
    assert [file.path for file in found] == ["inner/q/b_0.json", "inner/q/b_1.json"]
    assert source(tmp_path).find_all("none", lambda name: True) == []


def make(row):
    return ImageQA(
        id=row.identity("id"), image=MediaRef("x", open_store(".")), image_id="x", question=row.text("q")
    )


def test_malformed_rows_raise_or_are_counted(tmp_path):
    write_tree(
        tmp_path, {"a.jsonl": '{"id": 1, "q": "a"}\n\n{"id": 2}\n{"id": 3, "q"\n{"id": 4, "q": "d"}\n'}
    )
    strict = source(tmp_path)
    with pytest.raises(
        MalformedRecordError, match=r"a\.jsonl, row 3: must have the field `q`.*on_error='skip'"
    ):
        list(strict.build(strict.json_lines(strict.find("a.jsonl")), make))
    lenient = source(tmp_path, on_error="skip")
    records = list(lenient.build(lenient.json_lines(lenient.find("a.jsonl")), make))
    assert [record.id for record in records] == ["1", "4"]
    assert len(lenient.skipped) == 2
    assert "row 4" in lenient.skipped[1]


def test_an_id_that_comes_twice_names_both_rows_or_is_counted(tmp_path):
    write_tree(
        tmp_path, {"a.jsonl": '{"id": 1, "q": "a"}\n{"id": 1, "q": "b"}\n', "b.jsonl": '{"id": 1, "q": "c"}'}
    )
    strict, lenient = source(tmp_path), source(tmp_path, on_error="skip")
    with pytest.raises(MalformedRecordError, match=r"a\.jsonl, row 2: .* '1' is in row 1 already\. Repair"):
        list(strict.build(strict.json_lines(strict.find("a.jsonl")), make))
    kept = [
        record.question
        for name in ("a.jsonl", "b.jsonl")
        for record in lenient.build(lenient.json_lines(lenient.find(name)), make)
    ]
    assert kept == ["a"]
    assert len(lenient.skipped) == 2
    assert "b.jsonl, row 1" in lenient.skipped[1]
    assert "is in row 1 of" in lenient.skipped[1]


def test_joined_rows_are_found_by_ids_that_come_once(tmp_path):
    write_tree(tmp_path, {"a.jsonl": '{"id": 1}\n{"id": 2}\n{"id": 1}\n'})
    strict, lenient = source(tmp_path), source(tmp_path, on_error="skip")
    with pytest.raises(MalformedRecordError, match=r"row 3: must have its own `id`, but '1' is in row 1"):
        strict.by_id(strict.json_lines(strict.find("a.jsonl")), "id")
    assert list(lenient.by_id(lenient.json_lines(lenient.find("a.jsonl")), "id")) == ["1", "2"]
    assert len(lenient.skipped) == 1


def test_csv_rows_count_lines_of_the_file(tmp_path):
    write_tree(tmp_path, {"a.csv": "x,y\n1,2\n", "b.csv": "1,2\n3,4\n"})
    data = source(tmp_path)
    assert [(row.number, row.value) for row in data.csv_rows(data.find("a.csv"), header=True)] == [
        (2, {"x": "1", "y": "2"})
    ]
    assert [row.number for row in data.csv_rows(data.find("b.csv"), header=False)] == [1, 2]


ROW = {
    "t": "a",
    "i": 3,
    "digits": "12",
    "f": 1.5,
    "yes": "True",
    "l": ["a"],
    "m": {"k": 1},
    "n": None,
    "span": [1, 2.5],
}


def test_fields_come_out_typed():
    row = Row(ROW, "f.json", 7)
    assert (row.text("t"), row.integer("i"), row.integer("digits"), row.number_of("f")) == ("a", 3, 12, 1.5)
    assert (row.boolean("yes"), row.items("l"), row.texts("l"), row.texts("t")) == (
        True,
        ["a"],
        ("a",),
        ("a",),
    )
    assert (row.mapping("m"), row.identity("i"), row.identity("t")) == ({"k": 1}, "3", "a")
    assert row.text("absent", "default") == "default"
    assert row.span("span") == (1.0, 2.5)
    assert not row.has("n")
    assert row.sub({"z": "q"}).text("z") == "q"
    assert Row(["a", "b"], "f", 1).text(1) == "b"


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda r: r.text("i"), "`i` must be text, but is 3"),
        (lambda r: r.identity("f"), "`f` must be text or an integer"),
        (lambda r: r.identity("n"), "`n` must be text or an integer"),
        (lambda r: r.integer("t"), "`t` must be an integer"),
        (lambda r: r.number_of("t"), "`t` must be a number"),
        (lambda r: r.boolean("t"), "`t` must be true or false"),
        (lambda r: r.items("t"), "`t` must be a list"),
        (lambda r: r.texts("i"), "`i` must be a text or a list of texts"),
        (lambda r: r.mapping("t"), "`t` must be an object"),
        (lambda r: r.span("l"), "`l` must be two numbers in seconds"),
        (lambda r: r.field("zz"), "must have the field `zz`"),
        (lambda r: r.field(0), "must be a list, but is dict"),
        (lambda r: r.sub(["a"]).field(4), "must have at least 5 columns, but has 1"),
        (lambda r: r.sub("text").field("x"), "must be an object with field `x`, but is str"),
    ],
)
def test_wrong_types_name_file_row_and_field(read, message):
    with pytest.raises(MalformedRecordError, match=r"f\.json, row 7") as caught:
        read(Row(ROW, "f.json", 7))
    assert message in str(caught.value)


def test_an_encoded_row_is_parsed_once():
    row = Row(json.dumps({"a": 1}), "f", 1, encoded=True)
    assert row.integer("a") == row.integer("a") == 1
