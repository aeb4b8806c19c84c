"""An image that cannot be read ends the run, named; nothing stands in for it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from weft.train.cli import main
from weft.train.testing import write_retrieval_tasks


@pytest.mark.parametrize(("vision", "workers"), [("frozen", 0), ("trained", 0), ("trained", 1)])
def test_an_unreadable_image_is_named_and_ends_the_run(
    values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], vision: str, workers: int
) -> None:
    pytest.importorskip("av", reason="the miniature files hold videos too")
    colors = {"red": (200, 30, 30), "green": (30, 160, 60)}
    pictures = [(Image.new("RGB", (32, 32), color), name) for name, color in colors.items()]
    write_retrieval_tasks(tmp_path / "data", pictures, rows=8)
    broken = tmp_path / "data" / "vqa" / "train2014" / "COCO_train2014_000000000003.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    values["tasks"] = {
        "vqa": {
            "metric": "vqa",
            "max_new_tokens": 3,
            "data": {"name": "vqav2", "root": str(tmp_path / "data" / "vqa"), "test": "val"},
        }
    }
    values["training"] |= {"vision": vision, "batch_size": 4, "workers": workers}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(SystemExit) as ended:
        main(["train", str(path)])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert broken.name in message
    assert "Traceback" not in message
    assert not (Path(values["output"]) / "tiny" / "result.json").exists()
