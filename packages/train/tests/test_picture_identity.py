"""Every way to features gives each picture the tower's output on exactly that picture, whatever ran before."""

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from PIL import Image

from weft.core import attach
from weft.data import MediaRef, load_dataset
from weft.data.features.store import FeatureStore
from weft.data.sources.handles import close_handles
from weft.eval.evaluate.visual import Pixels
from weft.train.backbones.encoders import load_encoder
from weft.train.backbones.loading import load_backbone
from weft.train.output.progress import Progress
from weft.train.preflight.tasks import load_tasks
from weft.train.recipe.few_shot import EncoderSection, ViewsSection
from weft.train.recipe.loading import load_recipe
from weft.train.runs.extract import extract_stores
from weft.train.runs.few_shot.features import Extractor
from weft.train.runs.open_session import make_visual

ROWS = 8


def png(number: int) -> bytes:
    """A picture that no other number gives, not square."""
    noise = np.random.default_rng(number).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).resize((36, 24), Image.Resampling.NEAREST).save(stream, "PNG")
    return stream.getvalue()


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def questions(first: int, image: Any = png) -> list[dict[str, Any]]:
    return [
        {"id": f"{first + k}", "image": image(first + k), "question": "what color", "answers": ["red"]}
        for k in range(ROWS)
    ]


def pairs(first: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{first + k}",
            "left": png(first + 2 * k),
            "right": png(first + 2 * k + 1),
            "sentence": "is it",
            "label": True,
        }
        for k in range(ROWS)
    ]


def on(values: dict[str, Any], **tasks: dict[str, Any]) -> dict[str, Any]:
    """The recipe with other tasks."""
    own = {
        name: {"prompt": f"{name}: ", "max_new_tokens": 3, "data": {"name": "table", **data}}
        for name, data in tasks.items()
    }
    return values | {"tasks": own}


QUESTIONS = {"record": "image_qa"}
PAIRS = {"record": "pair_bool", "columns": {"images": ["left", "right"]}}


def tower(recipe: Any) -> Any:
    backbone = load_backbone(recipe.backbone)
    attach(backbone.model, recipe.method, list(recipe.tasks))
    return backbone


def media(tasks: Any) -> Iterable[MediaRef]:
    return (
        ref
        for data in tasks.values()
        for split in data.splits.values()
        for r in split
        for ref in r.media_refs()
    )


def check(backbone: Any, ref: MediaRef, found: torch.Tensor) -> None:
    with torch.no_grad():
        wanted = backbone.model.eval().encode_images(Pixels(backbone.transform)([[ref]])["pixel_values"])[
            0, 0
        ]
    # Sixteen bits hold three digits; the batches in which the tower saw the images differ.
    torch.testing.assert_close(found.float(), wanted, atol=2e-3, rtol=2e-3)


def check_run(values: dict[str, Any], backbone: Any = None) -> None:
    """See every picture of a recipe as a run does."""
    recipe = load_recipe(values)
    tasks, backbone = load_tasks(recipe), backbone or tower(recipe)
    visual = make_visual(recipe, backbone, tasks, Progress())
    for ref in media(tasks):
        check(backbone, ref, visual([[ref]])["visual_features"][0, 0])


def test_both_pictures_of_an_embedded_pair_are_seen(values, tmp_path):
    for first, split in ((0, "train"), (100, "test")):
        write_table(tmp_path / "data" / f"{split}.parquet", pairs(first))
    check_run(on(values, nlvr={"root": str(tmp_path / "data"), "options": PAIRS}))


def test_kept_pictures_of_an_embedded_pair_stay_two(values, tmp_path):
    for first, split in ((0, "train"), (100, "test")):
        write_table(tmp_path / "data" / f"{split}.parquet", pairs(first))
    recipe = load_recipe(
        on(values, nlvr={"root": str(tmp_path / "data"), "options": PAIRS}),
        ["training.vision=trained", "training.keep_images=100"],
    )
    tasks = load_tasks(recipe)
    visual = make_visual(recipe, load_backbone(recipe.backbone), tasks, Progress())
    for record in (*tasks["nlvr"]["train"], *tasks["nlvr"]["test"]):
        left, right = visual([record.images])["pixel_values"][0]
        assert not torch.equal(left, right)
        assert torch.equal(
            torch.stack([left, right]), Pixels(visual.transform)([record.images])["pixel_values"][0]
        )


def test_rows_of_one_number_in_two_tables_have_their_own_features(values, tmp_path):
    for first, split in ((0, "train"), (100, "test")):
        write_table(tmp_path / "data" / f"{split}.parquet", questions(first))
    check_run(on(values, vqa={"root": str(tmp_path / "data"), "options": QUESTIONS}))


def archives(tmp_path: Path, change: int = 0) -> dict[str, Any]:
    """Two data sets whose zips hold the same names."""
    tasks = {}
    for first, name in ((change, "one"), (change + 100, "two")):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for row in questions(first, lambda k: f"{k % 100}.png"):
                archive.writestr(f"images/{row['image']}", png(int(row["id"])))
            for split in ("train", "test"):
                rows = [{**row, "id": f"{k}"} for k, row in enumerate(questions(0, lambda k: f"{k}.png"))]
                archive.writestr(f"{split}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        options = QUESTIONS | {"media_root": "images"}
        tasks[name] = {"root": str(tmp_path / f"{name}.zip"), "options": options}
    return tasks


def test_members_of_one_name_in_two_archives_have_their_own_features(values, tmp_path):
    changed = on(values, **archives(tmp_path))
    check_run(changed)
    (store,) = (Path(values["output"]) / "features").iterdir()
    assert len(FeatureStore(store)) == 2 * ROWS


def test_stores_of_the_command_hold_every_picture_of_tars_with_equal_names(values, tmp_path):
    root = tmp_path / "tars"
    root.mkdir()
    for first, name in ((0, "train-000"), (100, "train-001"), (200, "test-000")):
        write_tar(root / f"{name}.tar", first)
    own = {"root": str(root), "options": {"record": "image_qa"}}
    changed = on(values, vqa=own)
    changed["tasks"]["vqa"]["data"]["name"] = "webdataset"
    (store,) = extract_stores(load_recipe(changed), tmp_path / "stores").values()
    assert len(FeatureStore(store)) == 3 * ROWS
    changed["tasks"]["vqa"]["data"]["features"] = str(store)
    check_run(changed)


def write_tar(path: Path, first: int) -> None:
    with tarfile.open(path, "w") as tar:
        for k in range(ROWS):
            told = json.dumps({"question": "what color", "answers": ["red"]}).encode()
            for ending, content in (("png", png(first + k)), ("json", told)):
                member = tarfile.TarInfo(f"{k}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def test_tasks_in_another_order_have_the_features_of_their_own_pictures(values, tmp_path):
    tasks = archives(tmp_path)
    check_run(on(values, **tasks))
    check_run(on(values, **dict(reversed(tasks.items()))))


def folder_of_pictures(tmp_path: Path) -> dict[str, Any]:
    root = tmp_path / "folder"
    root.mkdir()
    for k in range(2 * ROWS):
        (root / f"{k}.png").write_bytes(png(k))
    for first, split in ((0, "train"), (ROWS, "test")):
        write_table(root / f"{split}.jsonl", questions(first, lambda k: f"{k}.png"))
    return {"root": str(root), "options": QUESTIONS}


def test_the_lines_of_a_file_in_another_order_change_no_features(values, tmp_path):
    own = folder_of_pictures(tmp_path)
    check_run(on(values, vqa=own))
    train = tmp_path / "folder" / "train.jsonl"
    train.write_text("".join(reversed(train.read_text().splitlines(keepends=True))))
    check_run(on(values, vqa=own))


def test_a_picture_that_was_replaced_is_seen_anew_and_the_others_are_not(values, tmp_path):
    own = folder_of_pictures(tmp_path)
    check_run(on(values, vqa=own))
    changed = tmp_path / "folder" / "3.png"
    before = changed.stat()
    changed.write_bytes(png(1000))
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    check_run(on(values, vqa=own))
    (store,) = (Path(values["output"]) / "features").iterdir()
    assert len(FeatureStore(store)) == 2 * ROWS + 1


def test_an_archive_that_was_replaced_is_seen_anew(values, tmp_path):
    check_run(on(values, **archives(tmp_path)))
    close_handles()
    check_run(on(values, **archives(tmp_path, change=500)))


def test_the_command_adds_a_picture_that_was_replaced_to_its_store(values, tmp_path):
    own = folder_of_pictures(tmp_path)
    changed = on(values, vqa=own)
    (store,) = extract_stores(load_recipe(changed), tmp_path / "stores").values()
    (tmp_path / "folder" / "3.png").write_bytes(png(1000))
    assert extract_stores(load_recipe(changed), tmp_path / "stores") == {"vqa": store}
    changed["tasks"]["vqa"]["data"]["features"] = str(store)
    check_run(changed)


def test_another_tower_beside_an_earlier_run_has_features_of_its_own(values, tmp_path):
    changed = on(values, vqa=folder_of_pictures(tmp_path))
    check_run(changed)
    backbone = tower(load_recipe(changed))
    with torch.no_grad():
        for value in backbone.model.vision_tower.parameters():
            value.zero_()
    check_run(changed, backbone)
    assert len(list((Path(values["output"]) / "features").iterdir())) == 2


def test_the_mode_of_the_model_is_as_it_was(values, tmp_path):
    recipe = load_recipe(on(values, vqa=folder_of_pictures(tmp_path)))
    backbone = tower(recipe)
    backbone.model.train()
    make_visual(recipe, backbone, load_tasks(recipe), Progress())
    assert backbone.model.training


def test_few_shot_features_beside_an_earlier_run_are_those_of_their_own_pictures(clip, tmp_path):
    encoder, transform = load_encoder(EncoderSection(name=clip))
    extractor = Extractor(encoder, transform, tmp_path / "features", 3, Progress())
    for first in (0, 100):
        rows = [{"image": png(first + k), "class_name": "a"} for k in range(ROWS)]
        write_table(tmp_path / f"{first}" / "train.parquet", rows)
        records = load_dataset("table", root=tmp_path / f"{first}", split="train", record="classify")
        for order in (list(range(ROWS)), list(reversed(range(ROWS)))):
            drawn = records.select(order)
            pixels = torch.from_numpy(np.stack([transform(record.image.image()) for record in drawn]))
            found = extractor.plain(drawn, "images")
            torch.testing.assert_close(found, encoder.encode_images(pixels), atol=1e-5, rtol=1e-5)


def test_views_are_kept_for_the_record_that_drew_them(clip, tmp_path):
    encoder, transform = load_encoder(EncoderSection(name=clip))
    rows = [{"image": png(k), "class_name": "a"} for k in range(ROWS)]
    write_table(tmp_path / "train.parquet", rows)
    records = load_dataset("table", root=tmp_path, split="train", record="classify")
    renamed = records.with_records([replace(record, id=f"other {record.id}") for record in records])
    section = ViewsSection(augment=True, count=2)

    def views(drawn: Any, folder: str) -> torch.Tensor:
        return Extractor(encoder, transform, tmp_path / folder, 3, Progress()).views(drawn, section, "views")

    views(records, "one")
    torch.testing.assert_close(views(renamed, "one"), views(renamed, "two"))


@pytest.mark.slow
def test_two_runs_that_start_at_once_share_one_extraction(values, tmp_path):
    changed = on(values, vqa=folder_of_pictures(tmp_path)) | {"training": values["training"] | {"steps": 1}}
    for repeat in range(3):
        changed["output"] = str(tmp_path / f"runs-{repeat}")
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(changed, sort_keys=False))
        command = [sys.executable, "-m", "weft.train", str(recipe)]
        runs = [
            subprocess.Popen([*command, f"name={name}"], stderr=subprocess.PIPE, text=True) for name in "ab"
        ]
        for run in runs:
            _, said = run.communicate()
            assert run.returncode == 0, said[-3000:]
        (store,) = (tmp_path / f"runs-{repeat}" / "features").iterdir()
        assert len(FeatureStore(store)) == 2 * ROWS
        results = [json.loads((tmp_path / f"runs-{repeat}" / n / "result.json").read_text()) for n in "ab"]
        assert results[0]["scores"] == results[1]["scores"]
