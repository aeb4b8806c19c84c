"""The shipped few-shot recipes run on miniatures that are laid out as their data sets are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from weft.core.few_shot import load_head
from weft.data import draw_few_shot
from weft.data.testing import coop_layout, image_bytes, write_tree
from weft.train.errors import RunError
from weft.train.recipe.few_shot import FewShotRecipe
from weft.train.recipe.files import built_in_recipes
from weft.train.recipe.loading import load_any
from weft.train.runs.few_shot.draws import load_records
from weft.train.runs.few_shot.run import execute_few_shot

COUNTS = {"train": 3, "val": 2, "test": 2}
WNIDS = {"n01": "tench", "n02": "missile", "n03": "missile"}
DATASETS = sorted({name.split("/")[1] for name in built_in_recipes() if name.startswith("tip_adapter/")})


@pytest.fixture(autouse=True)
def without_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time of so small a run; the pictures are tested with the runs on colours."""
    monkeypatch.setattr("weft.train.runs.few_shot.run.write_votes", lambda *arguments: None)
    monkeypatch.setattr("weft.train.runs.few_shot.comparison.FewShotComparison.plot", lambda self, path: path)


def picture(label: int, number: int) -> bytes:
    return image_bytes(
        ((70 * label) % 256, (110 * label + 40) % 256, 20 * number), size=(30, 26), kind="JPEG"
    )


def miniature(recipe: FewShotRecipe) -> Mapping[str, bytes | str]:
    """Path to content of a few images of a recipe's data set, as they lie on disk."""
    name = recipe.data.name
    if name == "imagenet":
        names = "".join(f"{wnid} {words}\n" for wnid, words in WNIDS.items())
        return {"classnames.txt": names} | {
            f"images/{split}/{wnid}/{number}.JPEG": picture(label, number)
            for split, count in (("train", 5), ("val", 2))
            for label, wnid in enumerate(WNIDS)
            for number in range(count)
        }
    if name == "fgvc_aircraft":
        files: dict[str, bytes | str] = {"variants.txt": "707-320\nA300 B4\n"}
        for split, count in COUNTS.items():
            lines = []
            for label, variant in enumerate(("707-320", "A300 B4")):
                for number in range(count):
                    files[f"images/{split}{label}{number}.jpg"] = picture(label, number)
                    lines.append(f"{split}{label}{number} {variant}")
            files[f"images_variant_{split}.txt"] = "\n".join(lines)
        return files
    split_file, images_at = coop_layout(name)
    names = [*recipe.data.class_names] or ["accordion", "sea_horse", "yin_yang"]
    rows = {
        # CoOp's files do not list labels in their order.
        split: [
            [f"{c}/{split}{k}.jpg", label, c]
            for label, c in reversed([*enumerate(names)])
            for k in range(count)
        ]
        for split, count in COUNTS.items()
    }
    folder = f"{images_at}/" if images_at else ""
    images = {
        f"{folder}{path}": picture(label, k)
        for part in rows.values()
        for k, (path, label, _) in enumerate(part)
    }
    return {split_file: json.dumps(rows), **images}


def shipped(name: str, clip: str, root: Path, *more: str) -> FewShotRecipe:
    recipe = load_any(
        name,
        [
            f"encoder.name={clip}",
            "encoder.width=16",
            f"data.root={root / 'data'}",
            "data.num_classes=null",
            "shots=[2]",
            "seeds=[1]",
            "views.count=2",
            "threads=1",
            f"output={root / 'runs'}",
            "tracking.enabled=false",
            *more,
        ],
    )
    assert recipe is not None
    return recipe


# One set of each kind of layout in every run of the tests, the others among the slow ones.
@pytest.mark.parametrize(
    "dataset",
    [
        pytest.param(name, marks=() if name in ("dtd", "fgvc_aircraft", "imagenet") else pytest.mark.slow)
        for name in DATASETS
    ],
)
def test_the_recipes_of_a_data_set_run_where_it_lies(clip: str, tmp_path: Path, dataset: str) -> None:
    recipe = shipped(f"xmadapter/{dataset}", clip, tmp_path)
    write_tree(tmp_path / "data", miniature(recipe))
    result = execute_few_shot(recipe)
    assert result.heads == ["zero_shot", "tip_adapter", "tip_adapter_f", "xmadapter"]
    assert {(cell.shots, cell.seed) for cell in result.cells} == {(2, 1)}
    records = load_records(recipe)
    expected = draw_few_shot(records.train, records.validation, shots=2, seed=1)
    head = load_head(recipe.folder / "heads" / "tip_adapter-K2-seed1")
    assert head.num_samples == len(expected.train) == 2 * len(records.class_names)
    xm = load_head(recipe.folder / "heads" / "xmadapter-K2-seed1")
    assert not xm.prompt_weights.equal(xm.class_weights)
    tip = load_any(f"tip_adapter/{dataset}")
    assert tip is not None
    assert (tip.data, tip.templates) == (
        (original := load_any(f"xmadapter/{dataset}")).data,  # type: ignore[union-attr]
        original.templates,  # type: ignore[union-attr]
    )
    assert [*tip.heads] == [*recipe.heads[:3]]


def test_imagenet_is_scored_under_shift_and_on_other_data_sets(clip: str, tmp_path: Path) -> None:
    loaded = load_any("xmadapter/imagenet_shifts")
    assert loaded is not None
    roots = {**loaded.shifted, **loaded.transfer}
    changes = [
        f"{kind}.{name}.root={tmp_path / name}"
        for kind, found in (("shifted", loaded.shifted), ("transfer", loaded.transfer))
        for name in found
    ]
    recipe = shipped("xmadapter/imagenet_shifts", clip, tmp_path, "shots=[1]", "prompt_stage=null", *changes)
    names = miniature(recipe)["classnames.txt"]
    write_tree(tmp_path / "data", miniature(recipe))
    folders = {
        "imagenet_v2": ("imagenetv2-matched-frequency-format-val", ("0", "2")),
        "imagenet_sketch": ("images", tuple(WNIDS)),
        "imagenet_a": ("imagenet-a", ("n01", "n03")),
        "imagenet_r": ("imagenet-r", ("n02",)),
    }
    for name, (folder, classes) in folders.items():
        images = {f"{folder}/{c}/{k}.JPEG": picture(len(c), k) for c in classes for k in range(2)}
        write_tree(tmp_path / name, {"classnames.txt": names, **images})
    for name in loaded.transfer:
        write_tree(tmp_path / name, miniature(load_any(f"xmadapter/{name}")))  # type: ignore[arg-type]
    result = execute_few_shot(recipe)
    assert result.tests == ["test", *roots]
    by_head = {cell.head: cell.accuracies for cell in result.cells}
    for name in loaded.transfer:
        assert len({accuracies[name] for accuracies in by_head.values()}) == 1


def test_absent_images_are_named_before_anything_runs(clip: str, tmp_path: Path) -> None:
    recipe = shipped("tip_adapter/dtd", clip, tmp_path)
    files = dict(miniature(recipe))
    gone = [path for path in files if path.endswith("test1.jpg")]
    for path in gone:
        del files[path]
    write_tree(tmp_path / "data", files)
    with pytest.raises(RunError, match=r"but 3 of \d+ are not: .*accordion/test1.jpg.*`weft data check dtd`"):
        execute_few_shot(recipe)
    assert not (tmp_path / "runs").exists()
