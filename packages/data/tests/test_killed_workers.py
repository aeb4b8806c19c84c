"""Two local workers, undisturbed or one of them killed in mid-run: the bytes of the serial engine in the end."""

import importlib
import os

import pytest

from weft.data import Classify, MediaRef
from weft.data.errors import WorkerDiedError
from weft.data.features.extract import extract_features
from weft.data.features.index import FeatureKey
from weft.data.records.record_set import RecordSet
from weft.data.shards.convert import convert
from weft.data.testing import mean_colors

KEY = FeatureKey("toy", "w", "t")

# Workers import it by name. The first process that reads image 9 dies at that moment, as if it ran out of memory.
_DYING = """
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from weft.data.sources.store import Store
from weft.data.testing import image_bytes


@dataclass(frozen=True)
class DyingStore(Store):
    note: str
    deadly: bool

    def read(self, path):
        number = int(path.removesuffix(".png"))
        if self.deadly and number == 9 and not Path(self.note).exists():
            Path(self.note).write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return image_bytes((number, 0, 0))

    def exists(self, path):
        return True

    def names(self, prefix=""):
        return iter(())

    def describe(self, path=""):
        return f"dying/{path}"

    def place(self, path):
        return f"dying/{path}"
"""


@pytest.fixture(scope="module")
def dying(tmp_path_factory):
    """The module of the store, importable here and in the workers."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "weft_dying_store.py").write_text(_DYING)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        yield importlib.import_module("weft_dying_store")


@pytest.fixture(scope="module")
def ray(dying):
    """Ray on this machine; its workers inherit where to find the module."""
    ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'ray[data]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        yield ray
        ray.shutdown()


def records_of(module, note, *, deadly):
    store = module.DyingStore(str(note), deadly)
    records = [
        Classify(id=str(k), image=MediaRef(f"{k}.png", store), label=0, class_name="c") for k in range(20)
    ]
    return RecordSet("toy", "train", "classify", records)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray warns about its own settings
@pytest.mark.parametrize("deadly", [False, True], ids=["undisturbed", "one worker killed"])
@pytest.mark.parametrize("kind", ["shards", "features"])
def test_ray_writes_the_bytes_of_the_serial_engine(tmp_path, dying, ray, kind, deadly):
    note = tmp_path / "killed"
    for name, engine in (("serial", "serial"), ("ray", "ray")):
        records = records_of(dying, note, deadly=deadly and engine == "ray")
        if kind == "shards":
            convert(records, tmp_path / name, rows_per_shard=4, engine=engine, workers=2)
        else:
            extract_features(
                records, mean_colors, tmp_path / name, KEY, shard_items=4, engine=engine, workers=2
            )
    assert note.exists() == deadly
    if deadly:
        assert int(note.read_text()) != os.getpid()
    written = contents(tmp_path / "serial")
    assert len(written) >= 5
    assert contents(tmp_path / "ray") == written


@pytest.mark.slow
def test_a_pool_that_loses_a_process_says_so_and_goes_on_when_called_again(tmp_path, dying):
    note = tmp_path / "killed"
    settings = {"rows_per_shard": 4, "engine": "processes", "workers": 2}
    with pytest.raises(WorkerDiedError, match=r"worker process died.*Call again with the same arguments"):
        convert(records_of(dying, note, deadly=True), tmp_path / "pool", **settings)
    assert not (tmp_path / "pool" / "index.json").exists()
    convert(records_of(dying, note, deadly=True), tmp_path / "pool", **settings)
    convert(records_of(dying, note, deadly=False), tmp_path / "serial", rows_per_shard=4)
    assert contents(tmp_path / "pool") == contents(tmp_path / "serial")
