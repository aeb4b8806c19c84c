import pytest

from weft.data.errors import InvalidArgumentError
from weft.data.processes.atomic import whole_folder, write_bytes, write_text


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    write_text(tmp_path / "deep" / "a.txt", "old")
    with pytest.raises(TypeError):
        write_bytes(tmp_path / "deep" / "a.txt", "not bytes")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]
    assert (tmp_path / "deep" / "a.txt").read_text() == "old"


def write_half(target):
    with whole_folder(target) as folder:
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
