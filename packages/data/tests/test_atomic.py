import os

import pytest

from weft.data.errors import InvalidArgumentError
from weft.data.processes.atomic import whole_folder, write_bytes, write_text


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    write_text(tmp_path / "deep" / "a.txt", "old")
    with pytest.raises(TypeError):
        write_bytes(tmp_path / "deep" / "a.txt", "not bytes")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]
    assert (tmp_path / "deep" / "a.txt").read_text() == "old"


def write_half(target, **options):
    with whole_folder(target, **options) as folder:
        (folder / "half").write_text("x")
        raise RuntimeError("midway")


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "store"
    with pytest.raises(RuntimeError, match="midway"):
        write_half(target)
    assert list(tmp_path.iterdir()) == []
    target.mkdir()
    with whole_folder(target) as folder:
        (folder / "all").write_text("x")
    assert (target / "all").read_text() == "x"


def test_a_folder_that_holds_something_is_never_replaced(tmp_path):
    (tmp_path / "a").write_text("x")
    with (
        pytest.raises(InvalidArgumentError, match="must not exist or be an empty folder"),
        whole_folder(tmp_path),
    ):
        pass


def test_a_folder_is_replaced_on_demand_once_the_new_one_is_whole(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(RuntimeError, match="midway"):
        write_half(target, replace=True)
    assert [path.name for path in target.iterdir()] == ["old"]
    with whole_folder(target, replace=True) as folder:
        (folder / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
def test_what_is_written_has_the_rights_that_any_new_file_has(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "x")
        with whole_folder(tmp_path / "b"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o750
