"""What is fuzzed: each target takes any bytes as one file of somebody else, and may raise errors of weft alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tests.fuzz import model_targets, run_targets, trees
from tests.fuzz.ours import each
from tests.fuzz.trees import chosen

RECIPE = """\
name: tiny
backbone: {name: miniature}
method: {method: bottleneck, bottleneck_size: 4, sharing: multiple}
tasks:
  vqa:
    metric: vqa
    data: {name: scenes, options: {task: vqa, size: 24, num_scenes: 80}, test_options: {size: 8, num_scenes: 60}}
training: {steps: 6, batch_size: 8, learning_rate: 1e-2, mixing: {strategy: weights, weights: {vqa: 1.0}}}
tracking: {enabled: false}
"""
FEW_SHOT = """\
name: few
encoder: {name: model, width: 128}
data: {name: image_folder, root: $WEFT_DATA, class_names: {a: b}}
heads: [{method: tip_adapter}, {method: coop, label: x}]
shots: [1, 2]
"""


def read_recipe(data: bytes, folder: Path) -> None:
    """A recipe file, as `weft recipes show` and `weft plan` read it, and as it is kept."""
    from weft.train.cli.recipes import _whole
    from weft.train.recipe.kept import kept_text
    from weft.train.recipe.loading import load_any
    from weft.train.recipe.training import Recipe

    path = _put(folder / "recipe.yaml", data)
    each(lambda: _whole(str(path)))
    recipe = load_any(path)
    if isinstance(recipe, Recipe):
        each(lambda: _plan(recipe))
    kept_text(recipe)


def read_override(data: bytes, folder: Path) -> None:
    """Words of the command line after a recipe."""
    import yaml

    from weft.train.recipe.loading import load_recipe
    from weft.train.runs.sweep import read_axes

    word = data.decode("utf-8", "surrogateescape")
    each(lambda: read_axes([word]), lambda: load_recipe(yaml.safe_load(RECIPE), [word]))


def _plan(recipe: Any) -> None:
    from weft.core import plan
    from weft.train.backbones.loading import planned_model

    # Large ones take long, as they should.
    if recipe.backbone.name == "miniature" and len(recipe.tasks) < 20:
        str(plan(planned_model(recipe.backbone), recipe.method, list(recipe.tasks)))


def read_prediction_table(data: bytes, folder: Path) -> None:
    """The predictions of a run, as `weft inspect` shows them."""
    from weft.eval.report import inspect_html, tables_in

    _put(folder / "predictions" / "vqa.table.jsonl", data)
    tables = tables_in(folder)
    inspect_html(tables, other=tables)


def _table(file: str, **options: Any) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        from weft.data import load_dataset

        _put(folder / file, data)
        split = file.partition(".")[0].partition("-")[0]
        name = "webdataset" if file.endswith(".tar") else "table"
        for error in ("raise", "skip"):
            each(lambda error=error: list(load_dataset(name, folder, split, on_error=error, **options)))

    return read


def read_annotations(data: bytes, folder: Path) -> None:
    """One file of a published data set, as training and `weft data check` read it."""

    from weft.data import load_dataset
    from weft.data.checks import check_dataset

    tree, path, content = chosen(data, trees.data_sets())
    tree.write(folder, path, content)
    name, split, options = (tree.about[key] for key in ("name", "split", "options"))

    def read() -> None:
        for record in list(load_dataset(name, folder, split, **options))[:3]:
            each(*(medium.read for medium in record.media_refs()))

    each(
        read,
        lambda: list(load_dataset(name, folder, split, on_error="skip", require_media=False, **options)),
        lambda: check_dataset(name, folder, [split], media="all", **options),
    )


def read_submission(data: bytes, folder: Path) -> None:
    """Predictions and annotations of a benchmark, as `weft evaluate --predictions` reads them."""
    from weft.eval.submissions import score_predictions

    tree, path, content = chosen(data, trees.submissions())
    tree.write(folder, path, content)
    score_predictions(tree.about["task"], folder / tree.about["predictions"], folder / "gold")


def _archive(name: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        from weft.data import open_store

        store = open_store(_put(folder / name, data))
        each(*(lambda member=member: store.read(member) for member in list(store.names())[:20]))

    return read


def read_image(data: bytes, folder: Path) -> None:
    """An image, whatever its name says."""
    from weft.data import MediaRef
    from weft.data.media.transforms import ImageTransform

    ImageTransform(size=8)(MediaRef.from_bytes(data, "image").image())


def read_adapter(data: bytes, folder: Path) -> None:
    """One file of an adapter, as weft loads and imports it."""
    import copy

    from weft.core import load_adapter
    from weft.core.files.loading import read_config
    from weft.train.runs.exchange import import_adapter

    tree, path, content = chosen(data, trees.adapters())
    tree.write(folder, path, content)
    if "weft_config.json" in tree.files:
        each(lambda: read_config(folder), lambda: load_adapter(copy.deepcopy(_backbone()), folder))
    else:
        import_adapter(folder, folder / "out", backbone=str(trees.backbone()))


@cache
def _backbone() -> Any:
    return trees.model()


def read_head(data: bytes, folder: Path) -> None:
    """One file of a few-shot head."""
    from weft.core.few_shot import load_head
    from weft.core.few_shot.files import CONFIG, WEIGHTS

    tree, path, content = chosen(data, trees.heads())
    if path == WEIGHTS:  # with the digest of what there is, so that more than the digest is looked at
        words = json.loads(tree.files[CONFIG]) | {"sha256": hashlib.sha256(content).hexdigest()}
        tree = trees.Tree({CONFIG: json.dumps(words).encode()})
    tree.write(folder, path, content)
    load_head(folder)


def read_features(data: bytes, folder: Path) -> None:
    """One file of a store of features."""
    from weft.data.features.store import FeatureStore

    tree, path, content = chosen(data, trees.features())
    tree.write(folder, path, content)
    list(FeatureStore(folder))


def read_lock(data: bytes, folder: Path) -> None:
    """The lock beside a run."""
    from weft.data.processes.locks import held, holder_of

    path = _put(folder / ".run.lock", data)
    str(holder_of(path))
    with held(path, "`name`"):
        pass


def read_run(data: bytes, folder: Path) -> None:
    """One file of a finished run, as everything reads it that computes nothing."""
    from weft.eval.report import inspect_html, tables_in
    from weft.train.engine.checkpoints import require_resumable
    from weft.train.engine.stopping import how_to_start
    from weft.train.recipe.loading import load_any, load_recipe
    from weft.train.runs.origin import other_data, other_recipe

    tree, path, content = chosen(data, trees.runs(RECIPE))
    tree.write(folder, path, content)
    kept = load_recipe(tree.about["values"], [*tree.about["short"], f"output={folder.parent}", "name=in"])
    each(
        lambda: inspect_html(tables_in(folder)),
        lambda: load_any(folder / "recipe.yaml"),
        lambda: other_recipe(folder, kept),
        lambda: other_data(folder, {}),
        lambda: require_resumable(folder / "checkpoints"),
        lambda: how_to_start(folder),
    )


def go_on_with_run(data: bytes, folder: Path) -> None:
    """One file of a checkpoint or of an adapter, as `weft train --resume` and `weft evaluate` read it."""
    from weft.train.engine.checkpoints import MANIFEST, is_complete, seal
    from weft.train.recipe.loading import load_recipe
    from weft.train.runs.rescore import rescore
    from weft.train.runs.run import execute

    tree, path, content = chosen(data, trees.runs(RECIPE))
    if path == "recipe.yaml":
        return  # it would run, however long that takes
    tree.write(folder, path, content)
    if path.startswith("adapter/"):
        rescore(folder)
        return
    changed = (folder / path).parent
    if changed.name.startswith("checkpoint-") and not path.endswith(MANIFEST):
        (changed / MANIFEST).unlink()
        seal(changed.rename(folder / "changed"), changed)
        assert is_complete(changed)
        if changed.name == "checkpoint-1":
            shutil.rmtree(folder / "checkpoints" / "checkpoint-2")
    shutil.rmtree(folder / "adapter")
    (folder / "result.json").unlink()
    values, short = tree.about["values"], tree.about["short"]
    execute(load_recipe(values, [*short, f"output={folder.parent}", "name=in"]), resume=True)


def read_spool(data: bytes, folder: Path) -> None:
    """A spool, as `weft sync` looks at it and sends it."""
    from weft.eval.tracking import sync
    from weft.eval.tracking.sender import _destination
    from weft.eval.tracking.spool import Spool

    events, _, sent = data.partition(b"\n--\n")
    _put(folder / "events.jsonl", events + b"\n")
    if sent:
        _put(folder / "sent.json", sent)
    (folder / "files" / "f").mkdir(parents=True, exist_ok=True)

    def look() -> None:
        spool = Spool(folder)
        spool.check()
        if next(spool.events(), None) is not None:
            _destination(spool, None)
        spool.sent()

    each(look, lambda: sync(folder, trees.store()))


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    "recipes": read_recipe,
    "overrides": read_override,
    "prediction_tables": read_prediction_table,
    "tables_csv": _table("train.csv"),
    "tables_jsonl": _table("train.jsonl"),
    "tables_parquet": _table("train.parquet"),
    "webdataset": _table("train-0.tar"),
    "annotations": read_annotations,
    "submissions": read_submission,
    "archives_zip": _archive("x.zip"),
    "archives_tar": _archive("x.tar"),
    "archives_gz": _archive("x.tar.gz"),
    "images": read_image,
    "adapters": read_adapter,
    "heads": read_head,
    "features": read_features,
    "locks": read_lock,
    "run_folders": read_run,
    "run_resumed": go_on_with_run,
    "spools": read_spool,
    "encoders": model_targets.read_encoder,
    "backbones": model_targets.read_backbone,
    "weights": model_targets.read_weights,
    "listed": model_targets.read_listed,
    "foreign_features": model_targets.import_foreign,
    "videos": model_targets.read_video,
    "shared": run_targets.resume_sharing,
    "few_shot_runs": run_targets.rescore_few_shot_run,
    "requests": lambda data, folder: run_targets.ask_app(data, run_targets.watched(RECIPE)),
    "requests_raw": lambda data, folder: run_targets.ask_port(data, RECIPE),
}


def _put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
