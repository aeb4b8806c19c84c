"""Files that a command writes are whole or not there, also where the disk fills up on the way."""

import errno
from pathlib import Path

import pytest

from weft.train.errors import RunError
from weft.train.output.files import check_picture, written


def test_a_file_is_there_once_it_is_whole_and_folders_above_it_are_made(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "plot.png"
    with written(target, "--plot") as partial:
        partial.write_bytes(b"x")
        assert partial.suffix == ".png"
        assert not target.exists()
    assert target.read_bytes() == b"x"
    assert [path.name for path in target.parent.iterdir()] == ["plot.png"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyError("x")])
def test_what_fails_on_the_way_leaves_the_earlier_file_and_nothing_else(
    tmp_path: Path, error: Exception
) -> None:
    target = tmp_path / "plot.png"
    target.write_bytes(b"before")

    def write() -> None:
        with written(target, "--plot") as partial:
            partial.write_bytes(b"half")
            raise error

    expected = RunError if isinstance(error, OSError) else KeyError
    with pytest.raises(expected, match=r"`--plot` must be a file that can be written|x"):
        write()
    assert target.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for bad in (tmp_path / "file" / "x.png", tmp_path, Path("/proc/none/x.png")):
        with (
            pytest.raises(
                RunError, match=r"`--plot` must be a file that can be written, but .* Name another"
            ),
            written(bad, "--plot"),
        ):
            pytest.fail("the work began")


def test_a_picture_of_a_kind_that_nothing_draws_is_refused() -> None:
    check_picture(Path("a.PNG"), "--plot")
    with pytest.raises(
        RunError, match=r"`--plot` must end in one of \.eps, .*, but is 'a\.docx'\. Write, say, a\.png"
    ):
        check_picture(Path("a.docx"), "--plot")
