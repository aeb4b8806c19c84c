"""A run as a model that MLflow loads and serves: recipe, tokenizer and adapter, never the backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from weft.data import MediaRef, PairBool
from weft.eval.evaluate.predict import predict
from weft.eval.evaluate.visual import Pixels
from weft.train.backbones.loading import load_adapted
from weft.train.errors import RunError
from weft.train.output.result import ADAPTER
from weft.train.recipe.loading import load_recipe
from weft.train.runs.open_session import make_batches
from weft.train.runs.requests import RECORDS

Predictor = Callable[[str, Sequence[str], Sequence[Sequence[bytes]]], list[str]]


def load_predictor(
    folder: Path | str, types: Mapping[str, str], images: Mapping[str, int] = MappingProxyType({})
) -> Predictor:
    """Load what `weft.train.runs.tracked` kept of a run.

    Args:
        folder: Folder with `recipe.yaml` and `adapter/`, such as that of a run.
        types: Task to the type of its records, such as "image_qa".
        images: Task to the number of images that each of its records shows; by default one, and one or two for
            statements.

    Returns:
        A function of a task, the texts, and for each text its encoded images, to the answers. It raises a `RunError`
        where a row has another number of images than the task.

    Raises:
        RunError: The backbone cannot be reached, or has no vision tower.
    """
    folder = Path(folder)
    recipe = load_recipe(folder / "recipe.yaml")
    backbone = load_adapted(recipe, folder=folder, adapter=folder / ADAPTER)
    if backbone.transform is None and backbone.reader is None:
        raise RunError(
            f"`backbone` must read images to be served, but {backbone.name!r} has no image processor. "
            "Serve a run whose backbone holds a vision tower."
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model: Any = backbone.model
    model.to(device)
    visual = None if backbone.transform is None else Pixels(backbone.transform)
    batches = make_batches(recipe, backbone, visual)

    counts = {name: range(1, 3) for name, kind in types.items() if kind == PairBool.record_type}
    counts |= {name: range(count, count + 1) for name, count in images.items()}

    def answer(task: str, questions: Sequence[str], shown: Sequence[Sequence[bytes]]) -> list[str]:
        make = RECORDS[types[task]]
        records = []
        for row, (text, given) in enumerate(zip(questions, shown, strict=True)):
            present = [data for data in given if isinstance(data, bytes | bytearray) and data]
            _check_images(task, row, present, given, counts.get(task, range(1, 2)))
            refs = [MediaRef.from_bytes(bytes(data), f"{row}-{k}") for k, data in enumerate(present)]
            records.append(make(str(row), text, tuple(refs)))
        said = predict(model, task, records, batches, batch_size=recipe.evaluation.batch_size, device=device)
        assert isinstance(said, dict), "tasks that are asked are answered in words"
        return [said[record.id] for record in records]

    return answer


def _check_images(
    task: str, row: int, present: Sequence[bytes], given: Sequence[object], wanted: range
) -> None:
    """Refuse a row whose images are not those of its task: none may be missing, empty, or left out of the answer."""
    if len(present) in wanted and all(data in present for data in given[: len(present)]):
        return
    said = " or ".join(map(str, wanted))
    raise RunError(
        f"`images` of row {row} must be {said} encoded image{'' if said == '1' else 's'}, as task {task!r} was trained "
        f"on, but are {len(present)}. Fill `image`{' and `second_image`' if 2 in wanted else ' alone'}."
    )
