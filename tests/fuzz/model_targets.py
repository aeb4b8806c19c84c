"""Targets that read models of others: folders of encoders and backbones, and single files of weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.fuzz import model_trees, trees
from tests.fuzz.ours import each
from tests.fuzz.trees import chosen

LARGEST_SIZE = 512  # of a layer, or their number: larger models take long, and as much memory as they say


def read_encoder(data: bytes, folder: Path) -> None:
    """One file of the folder that a few-shot recipe's `encoder` names."""
    from PIL import Image

    from weft.train.backbones.encoders import load_encoder, width_of
    from weft.train.recipe.few_shot import EncoderSection

    tree, path, content = chosen(data, model_trees.encoders())
    if _is_large(path, content):
        return
    tree.write(folder, path, content)
    section = EncoderSection(name=str(folder), library=tree.about["library"])

    def use() -> None:
        encoder, transform = load_encoder(section)
        encoder.encode_texts(["a square", "b"])
        encoder.encode_images(transform.inputs([Image.new("RGB", (20, 14))])["pixel_values"])

    each(lambda: width_of(section), use)


def read_backbone(data: bytes, folder: Path) -> None:
    """One file of the folder that a recipe's `backbone.name` names."""
    from weft.train.backbones.loading import load_backbone, planned_model, reader_of
    from weft.train.recipe.sections import BackboneSection

    tree, path, content = chosen(data, model_trees.backbones())
    if _is_large(path, content):
        return
    tree.write(folder, path, content)
    section = BackboneSection(name=str(folder))
    each(
        lambda: reader_of(section),
        lambda: planned_model(section),
        lambda: load_backbone(section),
    )


def _is_large(path: str, content: bytes) -> bool:
    if not path.endswith("config.json"):
        return False
    try:
        return max(_numbers(json.loads(content)), default=0) > LARGEST_SIZE
    except (ValueError, RecursionError):
        return False


def _numbers(values: Any) -> Iterator[float]:
    if isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _numbers(value)
    elif isinstance(values, int | float):
        yield values


def read_weights(data: bytes, folder: Path) -> None:
    """A file of weights, as `encoder.weights`, `backbone.weights` and packaged encoders name one.

    An input is a whole file; or a line that names a member of an archive, whose content follows.
    """
    from weft.core.composites import load_blip, load_efficientnet_lite
    from weft.train.backbones.encoders import load_encoder
    from weft.train.recipe.few_shot import EncoderSection

    head, _, content = data.partition(b"\n")
    known = [f"{name} {path}".encode() for name, tree in model_trees.weights().items() for path in tree.files]
    if head in known:
        tree, path, content = chosen(data, model_trees.weights())
        data = model_trees.packed({**tree.files, path: content})
    file, other = folder / "weights.pth", folder / "weights.safetensors"
    file.write_bytes(data)
    blip = EncoderSection(name=str(_blip_folder()), library="weft", weights=str(file))
    steps: list[Callable[[], object]] = [
        lambda: load_blip(model_trees.blip_model(), file),
        lambda: load_efficientnet_lite(file, 0),
        lambda: load_encoder(blip),
    ]
    if find_spec("open_clip") is not None:
        other.write_bytes(data)
        named = [
            EncoderSection(name="RN50", library="open_clip", weights=str(path)) for path in (file, other)
        ]
        steps += [partial(load_encoder, section) for section in named]
    each(*steps)


@cache
def _blip_folder() -> Path:
    place = trees.new_place("blip")
    model_trees.blip_config().save_pretrained(place)
    return place


def read_listed(data: bytes, folder: Path) -> None:
    """One of the small files that recipes and options name: texts about classes, answers, choices, draws, tables."""
    tree, path, content = chosen(data, listed())
    tree.write(folder, path, content)
    READERS[path](folder / path)


def _class_texts(path: Path) -> None:
    from weft.train.runs.few_shot.draws import read_class_texts

    texts = read_class_texts(str(path))
    _encoder().class_weights(["cat", "dog"], ["a photo of a {}."], texts=texts)


@cache
def _encoder() -> Any:
    from weft.core.few_shot import ImageTextEncoder
    from weft.core.testing.processed import tiny

    return ImageTextEncoder(tiny("clip").model, tiny("clip").processor.tokenizer)


def _answers(path: Path) -> None:
    from weft.train.preflight.answers import read_answers

    read_answers("vqa", str(path))


def _choices(path: Path) -> None:
    from weft.eval.submissions import score_predictions
    from weft.train.cli.runs import metric_options

    options = metric_options("gqa", choices=path)
    tree = trees.submissions()["gqa"]
    tree.write(path.parent, "other", b"")
    score_predictions("gqa", path.parent / tree.about["predictions"], path.parent / "gold", **options)


def _drawn(path: Path) -> None:
    from weft.data.sampling.few_shot import FewShotDraw

    with suppress(LookupError):  # of records that another set has; `apply` is for one's own
        FewShotDraw.load(path).apply(_records())


@cache
def _records() -> Any:
    from weft.data import load_dataset
    from weft.data.testing import image_bytes, write_tree

    files = {f"train/{kind}/{number}.png": image_bytes() for kind in "ab" for number in range(2)}
    return load_dataset("image_folder", write_tree(trees.new_place("pictures"), files), "train")


def _published(path: Path) -> None:
    from weft.eval.compare import Comparison
    from weft.eval.compare.published import published_rows, with_published

    published_rows(path)
    own = {"method": "m", "seed": 1, "scores": {"vqa": 1.0}, "trainable": 1, "total": 2}
    with_published(Comparison.from_rows([own]), [path])


READERS: dict[str, Callable[[Path], None]] = {
    "class_texts.json": _class_texts,
    "answers.json": _answers,
    "choices.json": _choices,
    "draw.json": _drawn,
    "published.csv": _published,
}


@cache
def listed() -> dict[str, trees.Tree]:
    """One valid file of each kind."""
    from weft.data.sampling.few_shot import draw_few_shot

    place = trees.new_place("drawn") / "draw.json"
    draw_few_shot(_records(), shots=1, seed=1).save(place)
    files = {
        "class_texts.json": b'{"cat": ["A cat.", "x"], "dog": ["a dog"]}',
        "answers.json": b'["yes", "no"]',
        "choices.json": b'{"1": {"valid": ["a"], "plausible": ["a", "b"]}}',
        "draw.json": place.read_bytes(),
        "published.csv": b"method,label,trainable,total,test/vqa,published\nx,X,1,100,60.5,table 1\n",
    }
    return {"listed": trees.Tree(files)}


def import_foreign(data: bytes, folder: Path) -> None:
    """A file of features that others extracted, as `weft data import-features` reads it."""
    from weft.train.runs.feature_import import import_features

    _, path, content = chosen(data, foreign())
    file = folder / "in" / path
    file.parent.mkdir()
    file.write_bytes(content)
    each(
        lambda: import_features(file, folder / "out"),
        lambda: import_features(file, folder / "fewer", tokens=4),
    )


@cache
def foreign() -> dict[str, trees.Tree]:
    """HDF5, npz and Parquet files of features."""
    import io

    import h5py
    import numpy as np
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    values = np.arange(18, dtype=np.float32).reshape(9, 2)
    hdf5, npz, table = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with h5py.File(hdf5, "w") as file:
        file.create_group("1").create_dataset("features", data=values)
    np.savez(npz, features=values)
    parquet.write_table(arrow.table({"id": ["1"], "features": [values.tolist()]}), table)
    files = {"a.h5": hdf5.getvalue(), "a.npz": npz.getvalue(), "a.parquet": table.getvalue()}
    return {"foreign": trees.Tree(files)}


def read_video(data: bytes, folder: Path) -> None:
    """A video, whatever its name says."""
    from weft.data import MediaRef
    from weft.data.media.video import read_frames

    read_frames(MediaRef.from_bytes(data, "video"), 2)


@cache
def video() -> bytes:
    """A film of four small frames."""
    import io

    import av
    import numpy as np

    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        track: Any = container.add_stream("mpeg4", rate=4)
        track.width = track.height = 32
        track.pix_fmt = "yuv420p"
        for shade in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 60 * shade, np.uint8), format="rgb24")
            container.mux(track.encode(frame))
        container.mux(track.encode())
    return stream.getvalue()
