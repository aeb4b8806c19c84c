import io
import multiprocessing
import os
import pickle
import tarfile
import zipfile

import fsspec
import pytest

from weft.data.errors import CorruptMediaError, MissingFileError, UnsafePathError
from weft.data.sources.archives import ArchiveStore
from weft.data.sources.folders import FolderStore
from weft.data.sources.handles import close_handles
from weft.data.sources.opening import open_store
from weft.data.sources.store import BytesStore, safe_member
from weft.data.testing import write_tree, zip_bytes

FILES = {"a.txt": b"alpha", "deep/er/b.txt": b"beta"}


def tar_bytes(files, mode="w"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture(params=["folder", "zip", "tar", "tar.gz", "memory", "file-url", "memory-zip"])
def store(request, tmp_path):
    kind = request.param
    if kind == "folder":
        return open_store(write_tree(tmp_path / "root", FILES))
    if kind == "file-url":
        return open_store("file://" + str(write_tree(tmp_path / "root", FILES)))
    if kind in ("memory", "memory-zip"):
        memory = fsspec.filesystem("memory")
        memory.pipe({f"/stores/{name}": content for name, content in FILES.items()})
        memory.pipe("/stores.zip", zip_bytes(FILES))
        return open_store("memory://stores" if kind == "memory" else "memory://stores.zip")
    path = tmp_path / f"root.{kind}"
    path.write_bytes(zip_bytes(FILES) if kind == "zip" else tar_bytes(FILES, "w:gz" if "gz" in kind else "w"))
    return open_store(path)


def test_every_place_reads_lists_and_sizes_the_same(store):
    assert store.read("deep/er/b.txt") == b"beta"
    with store.open("a.txt") as stream:
        assert stream.read() == b"alpha"
    assert list(store.names()) == ["a.txt", "deep/er/b.txt"]
    assert list(store.names("deep")) == ["deep/er/b.txt"]
    assert store.size("a.txt") == 5
    assert store.exists("a.txt")
    assert not store.exists("c.txt")
    assert pickle.loads(pickle.dumps(store)).read("a.txt") == b"alpha"


def test_a_missing_file_names_its_full_address(store):
    with pytest.raises(MissingFileError, match=r"File not found: .*c\.txt"):
        store.read("c.txt")


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "C:/x", "a\\..\\x", "a\x00b"])
def test_paths_that_leave_their_place_are_refused(store, path):
    with pytest.raises(UnsafePathError, match="must stay inside its folder"):
        store.read(path)


def test_plain_paths_are_tidied():
    assert safe_member("./a//b/./c.png") == "a/b/c.png"


@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_an_archive_with_an_escaping_member_is_refused(tmp_path, ending):
    path = tmp_path / f"evil.{ending}"
    path.write_bytes((zip_bytes if ending == "zip" else tar_bytes)({"../../evil.txt": b"x", "a.txt": b"a"}))
    with pytest.raises(UnsafePathError, match=r"evil.txt"):
        open_store(path).read("a.txt")


def test_a_link_inside_a_tar_is_refused(tmp_path):
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(UnsafePathError, match="is a link"):
        open_store(path).read("link")


def test_a_link_inside_a_zip_is_refused(tmp_path):
    path = tmp_path / "links.zip"
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("link")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(UnsafePathError, match="is a link"):
        open_store(path).read("link")


def test_a_link_out_of_a_folder_needs_consent(tmp_path):
    write_tree(tmp_path / "outside", {"secret.txt": "s"})
    root = write_tree(tmp_path / "root", {"a.txt": "a"})
    os.symlink(tmp_path / "outside", root / "linked")
    with pytest.raises(UnsafePathError, match="follow_links=True"):
        open_store(root).read("linked/secret.txt")
    allowed = open_store(root, follow_links=True)
    assert allowed.read("linked/secret.txt") == b"s"
    assert "linked/secret.txt" in list(allowed.names())


def test_a_link_inside_the_folder_is_followed(tmp_path):
    root = write_tree(tmp_path / "root", {"a.txt": "a"})
    os.symlink(root / "a.txt", root / "b.txt")
    assert open_store(root).read("b.txt") == b"a"


@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_a_damaged_archive_is_named(tmp_path, ending):
    path = tmp_path / f"broken.{ending}"
    path.write_bytes(b"not an archive at all" * 40)
    with pytest.raises(CorruptMediaError, match=r"broken\.\w+ is damaged"):
        open_store(path).read("a.txt")


def test_a_damaged_member_is_named(tmp_path):
    path = tmp_path / "flip.zip"
    data = bytearray(zip_bytes({"a.txt": b"alpha" * 10}))
    data[40] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(CorruptMediaError, match=r"'a.txt' of .*flip.zip is damaged"):
        open_store(path).read("a.txt")


def test_a_tar_cut_short_is_named(tmp_path):
    path = tmp_path / "cut.tar"
    path.write_bytes(tar_bytes({"a.txt": b"alpha" * 400})[:900])
    with pytest.raises(CorruptMediaError, match="cut"):
        open_store(path).read("a.txt")


def test_a_missing_archive_is_a_missing_file(tmp_path):
    with pytest.raises(MissingFileError, match=r"none.zip"):
        open_store(tmp_path / "none.zip").read("a")


def test_credentials_never_show():
    store = open_store("s3://me:hunter2@bucket/x", {"secret": "hunter2"})
    assert "hunter2" not in store.describe("a.png")
    assert "hunter2" not in open_store("s3://b/x.zip", {"secret": "hunter2"}).__repr__()


def test_a_folder_named_like_an_archive_is_a_folder(tmp_path):
    assert isinstance(open_store(write_tree(tmp_path / "odd.zip", FILES)), FolderStore)


def test_bytes_in_memory_are_a_store():
    store = BytesStore({"a/b": b"1"}, "row 3")
    assert store.read("a/b") == b"1"
    assert store.exists("a/b")
    assert list(store.names("a")) == ["a/b"]
    assert store.describe("a/b") == "row 3:a/b"
    assert isinstance(hash(store), int)
    with pytest.raises(MissingFileError, match="row 3"):
        store.read("c")


def _child(store, queue):
    queue.put(store.read("deep/er/b.txt"))


def test_a_forked_worker_opens_its_own_handle(tmp_path):
    path = tmp_path / "f.zip"
    path.write_bytes(zip_bytes(FILES))
    store = ArchiveStore(str(path))
    store.read("a.txt")
    context = multiprocessing.get_context("spawn" if os.name == "nt" else "fork")
    queue = context.Queue()
    worker = context.Process(target=_child, args=(store, queue))
    worker.start()
    assert queue.get(timeout=30) == b"beta"
    worker.join()
    assert store.read("a.txt") == b"alpha"


def test_handles_close_and_open_again(tmp_path):
    for number in range(70):
        (tmp_path / f"{number}.zip").write_bytes(zip_bytes({"n": str(number)}))
    stores = [open_store(tmp_path / f"{number}.zip") for number in range(70)]
    assert [store.read("n") for store in stores] == [str(number).encode() for number in range(70)]
    close_handles()
    assert stores[0].read("n") == b"0"
