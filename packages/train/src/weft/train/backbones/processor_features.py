"""Features of the pictures of a model that its own processor reads: extracted once, for its training and others'."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from weft.core.backbone.tensor_digests import module_digest
from weft.data import Caption, MediaRef, Record
from weft.data.features.extract import extract_features
from weft.data.features.index import FeatureKey
from weft.data.features.store import FeatureStore
from weft.eval.evaluate.stored_pictures import COMPANY, StoredPictures, tag_of
from weft.eval.readers import PictureFeatures, Reader, ask
from weft.eval.readers.batch import computed_in
from weft.eval.readers.image_processor import ProcessorTransform
from weft.eval.readers.picture_features import holder_of, language_model_of
from weft.train.backbones.loaded import LoadedBackbone
from weft.train.errors import RunError
from weft.train.output.progress import Progress
from weft.train.processes import Processes

_BATCH = 16


def check_stored(reader: Reader, model: Any, plan: Any) -> None:
    """Refuse to store features of a model that does not take them, or whose features change in training.

    Raises:
        RunError: With the reason.
    """
    if "features" not in reader.abilities:
        raise RunError(
            f"`training.vision` must be 'frozen' or 'trained' for {reader.title} because it does not read features in "
            "the place of pictures, but is 'stored'. Leave it out."
        )
    holder = holder_of(model)
    before = next(f"{name}." for name, part in model.named_modules() if part is holder)
    language = f"{before}{language_model_of(model)}."
    places = [*(site.path for site in plan.sites), *(full.path for full in plan.full)]
    outside = [path for path in places if path.startswith(before) and not f"{path}.".startswith(language)]
    if outside:
        raise RunError(
            "`training.vision` must be 'trained' where the method changes what pictures become, but is 'stored' and "
            f"{len(outside)} of its sites or parameters lie before the language model, such as {outside[0]}. Set it, "
            "or keep to the text (`towers: [text]`)."
        )


def read_key(backbone: LoadedBackbone) -> FeatureKey:
    """What the features of a backbone that passes `check_stored` depend on: tower, connector, and image processor."""
    holder = holder_of(backbone.model)
    transform = ProcessorTransform(backbone.reader.processor.image_processor)
    left_out = f"{language_model_of(backbone.model)}."
    return FeatureKey(backbone.name, module_digest(holder, left_out), transform.fingerprint())


def extract_read(
    backbone: LoadedBackbone,
    records: Iterable[Record],
    folder: Path,
    processes: Processes,
    progress: Progress,
) -> StoredPictures:
    """Extract the features of records to train on that a store lacks, and open it; all processes call this.

    Stores are in the folder, that of this tower under its digest.

    Raises:
        RunError: As `check_stored`.
    """
    model: Any = backbone.model
    reader: Any = backbone.reader
    check_stored(reader, model, model.weft.plan)
    key = read_key(backbone)
    wanted = _pictures(reader, records)
    training = model.training
    model.eval()
    store = None
    for tag, refs in wanted.items():
        store = _extracted(
            backbone, tag, list(refs.values()), folder / key.digest(), key, processes, progress
        )
    if store is None:
        raise RunError(
            "`training.vision` must be left out where no record to train on shows a picture, but is 'stored'."
        )
    tag, refs = next(iter(wanted.items()))
    form = _features(backbone, [next(iter(refs.values()))], tag)[0]
    model.train(training)
    form = form.changed(lambda values: values[:0].cpu())
    places = {
        (place, tag): _found(store, ref, tag) for tag, refs in wanted.items() for place, ref in refs.items()
    }
    return StoredPictures(reader, store, places, form)


def _found(store: FeatureStore, ref: MediaRef, tag: str) -> int:
    item = store.find(_record(ref), tag)
    assert item is not None, "extracted just now"
    return item


def _pictures(reader: Reader, records: Iterable[Record]) -> Mapping[str, dict[str, MediaRef]]:
    """Tag to the pictures that are seen so, by their place."""
    found: dict[str, dict[str, MediaRef]] = {}
    for record in records:
        refs = record.media_refs()
        for ref in refs:
            found.setdefault(tag_of(reader, len(refs)), {}).setdefault(ref.place, ref)
    return found


def _extracted(
    backbone: LoadedBackbone,
    tag: str,
    refs: Sequence[MediaRef],
    folder: Path,
    key: FeatureKey,
    processes: Processes,
    progress: Progress,
) -> FeatureStore:
    def encode(records: Sequence[Any]) -> list[Any]:
        made = _features(backbone, [record.media for record in records], tag)
        return [one.values.to(dtype).cpu().numpy() for one in made]

    half = computed_in(backbone.model) == torch.float16
    dtype = torch.float16 if half else torch.float32
    with progress.bar("features", len(refs)) as advance:
        return extract_features(
            [_record(ref) for ref in refs],
            encode,
            folder,
            key,
            tag=lambda record: tag,
            batch_size=_BATCH,
            ragged=True,
            dtype="float16" if half else "float32",
            place=(processes.rank, processes.size),
            decide=processes.decided_by_first if processes.size > 1 else None,
            progress=lambda done, missing: advance(len(refs) - missing + done),
        )


def _features(backbone: LoadedBackbone, refs: Sequence[MediaRef], tag: str) -> list[PictureFeatures]:
    """What the model makes of some pictures, each for itself."""
    model: Any = backbone.model
    reader: Any = backbone.reader
    times = 2 if tag == COMPANY else 1
    rows = [ask("a", [ref] * times, name=ref.uri) for ref in refs]
    batch = reader.asking(rows).to(next(model.parameters()).device, dtype=computed_in(model))
    with torch.no_grad():
        made = reader.with_features(model, batch).features
    tokens = reader.picture_tokens(batch).tolist()
    if sum(tokens) != len(made.values):
        raise RunError(
            f"`training.vision` must be 'frozen' or 'trained' for {reader.title} because its pictures have "
            f"{len(made.values)} features for {sum(tokens)} tokens, but is 'stored'. Leave it out."
        )
    parts = made.values.split(tokens)
    return [
        made.changed(lambda _, part=part, n=n: part[: n // times])
        for part, n in zip(parts, tokens, strict=True)
    ]


def _record(ref: MediaRef) -> Caption:
    return Caption(id=ref.uri, media=ref, media_id=ref.path)
