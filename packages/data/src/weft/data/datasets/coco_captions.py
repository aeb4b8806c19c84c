"""COCO captions: five or more per photo, in the Karpathy split, the official files, or the lists of BLIP."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._coco import CocoImages
from weft.data.datasets._karpathy import Captioned, captioned, check_task, read_blip, read_karpathy
from weft.data.errors import require_known
from weft.data.media.reference import MediaRef
from weft.data.records.rows import Row
from weft.data.records.source import Source

_OFFICIAL = ("train2014", "val2014", "train2017", "val2017")


def read(
    source: Source, split: str, *, task: str = "caption", restval: bool = True, form: str = "auto"
) -> Iterator[Captioned]:
    """Yield `Caption` records (one per image) or `Retrieval` records (one per caption).

    Splits "train", "val" and "test" are the Karpathy split; "train2014" and so on the official files.

    Options:
        task: "caption" or "retrieval".
        restval: Whether "train" takes in the images marked "restval", as is usual.
        form: "karpathy" for dataset_coco.json, "blip" for coco_karpathy_{split}.json, "auto" for either.
    """
    check_task("coco_captions", task)
    images = CocoImages(source)
    if split in _OFFICIAL:
        yield from _official(source, split, task, images)
        return
    blip = [f"coco_karpathy_{split}.json"]
    karpathy = ["dataset_coco.json", "COCO/dataset_coco.json", "karpathy/dataset_coco.json"]
    forms = {"auto": karpathy + blip, "karpathy": karpathy, "blip": blip}
    require_known("form of coco_captions", forms, form)
    file = source.find(*forms[form])

    def locate(folder: str, file_name: str) -> MediaRef:
        return images.by_name(folder or file_name.split("_")[1], file_name)

    if "coco_karpathy_" in file.path:
        yield from read_blip(source, file, locate, task)
    else:
        wanted = ("train", "restval") if split == "train" and restval else (split,)
        yield from read_karpathy(source, file, wanted, locate, task)


def _official(source: Source, split: str, task: str, images: CocoImages) -> Iterator[Captioned]:
    file = source.find(f"captions_{split}.json", f"annotations/captions_{split}.json")
    top = file.top()
    captions: dict[str, list[Row]] = {}
    for row in source.rows(file, top.items("annotations")):
        captions.setdefault(row.identity("image_id"), []).append(row)

    def make(row: Row) -> Iterator[Captioned]:
        image_id = row.identity("id")
        own = captions.get(image_id)
        if not own:
            row.fail(f"image {image_id} must have a caption, but `annotations` has none")
        named = row.has("file_name")
        media = images.by_name(split, row.text("file_name")) if named else images.by_number(split, image_id)
        texts = [(caption.identity("id"), caption.text("caption")) for caption in own]
        yield from captioned(task, media, image_id, texts)

    yield from source.build(source.rows(file, top.items("images")), make)


SPEC = DatasetSpec(
    name="coco_captions",
    record_type="caption",
    splits=("train", "val", "test", *_OFFICIAL),
    read=read,
    summary="COCO photos with five captions each; captioning and retrieval.",
    licence="Captions CC BY 4.0; images under Flickr terms",
    citation="Chen et al.: Microsoft COCO Captions, 2015; split of Karpathy and Fei-Fei, CVPR 2015.",
    how_to_get="dataset_coco.json from https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip (or "
    "captions_*.json from https://cocodataset.org), images train2014 and val2014 from https://cocodataset.org; root "
    "holds them, folders or zips.",
    bases=("", "COCO", "coco", "annotations"),
    expected={"train": 113287, "val": 5000, "test": 5000},
    hub=(HubSource(repo="yerevann/coco-karpathy", note="text and URLs only"),),
)
