from pathlib import Path

import pytest
from PIL import Image

from weft.data.shards.parquet import ShardedRecords
from weft.data.testing import image_bytes, write_tree
from weft.train.cli import main


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["data", *words])
    return int(ended.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {f"train/{name}/{k}.png": image_bytes((k, 9, 9)) for name in ("cat", "dog") for k in range(3)}
    return write_tree(tmp_path / "images", files)


def test_every_data_set_is_listed_with_size_and_licence(capsys):
    assert run("list") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("gqa ")]
    assert "CC BY 4.0" in line
    assert "," in line.split()[2]


def test_records_are_drawn_into_a_sheet(folder, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert run("show", "image_folder", str(folder), "--output", str(sheet), "--count", "4") == 0
    assert capsys.readouterr().out.endswith(f"{sheet}\n")
    with Image.open(sheet) as drawn:
        assert drawn.width > 4 * 180
        assert len(drawn.convert("RGB").getcolors(2**20)) > 4
    assert run("show", "scenes", "--output", str(sheet), "--option", "task=nlvr", "--option", "size=5") == 0
    assert run("show", "scenes", "--output", str(sheet), "--option", "task") == 2
    assert "must read KEY=VALUE, but is 'task'" in capsys.readouterr().err


def test_a_check_names_each_odd_file(folder, capsys):
    assert run("check", "image_folder", str(folder), "--split", "train") == 0
    assert "train: 6 records, no number stated, 6 media looked at" in capsys.readouterr().out
    (folder / "train/dog/1.png").write_bytes(b"no image")
    assert run("check", "image_folder", str(folder), "--split", "train", "--media", "all") == 2
    assert "dog/1.png" in capsys.readouterr().out
    assert run("check", "image_folder", str(folder), "--media", "some") == 2
    assert "must be one of none, sample, all" in capsys.readouterr().err


def test_a_check_prints_classes_with_their_counts(folder, capsys):
    write_tree(folder, {f"train/{k:02}/a/0.png": image_bytes() for k in range(20)})
    assert run("check", "image_folder", str(folder), "--split", "train") == 0
    printed = capsys.readouterr().out
    assert "\n  22 classes: 00 1, 01 1, " in printed
    assert ", 19 1, and 2 more\n" in printed
    assert "\n  20 of 26 images lie below the folder of their class, such as those in '00/a'" in printed
    assert (
        run("check", "image_folder", str(folder), "--split", "train", "--option", "classes=[cat, dog]") == 2
    )
    assert run("check", "image_folder", str(folder / "train"), "--split", "all") == 0


def test_a_split_becomes_shards_that_hold_the_same_records(folder, tmp_path, capsys):
    target = tmp_path / "shards"
    assert run("convert", "image_folder", str(folder), str(target), "--rows-per-shard", "4") == 0
    assert "6 records in 2 shards" in capsys.readouterr().out
    records = ShardedRecords(target)
    assert [record.class_name for record in records] == ["cat"] * 3 + ["dog"] * 3
    assert records[0].image.read() == (folder / "train/cat/0.png").read_bytes()
    assert run("convert", "image_folder", str(folder), str(target)) == 2
    assert "holds something else" in capsys.readouterr().err
    assert run("convert", "image_folder", str(folder), str(tmp_path / "new"), "--engine", "rey") == 2
    assert "Did you mean 'ray'" in capsys.readouterr().err
