"""Flickr30K: photos with five captions each, in the Karpathy split or the lists of BLIP."""

from collections.abc import Iterator

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.datasets._karpathy import Captioned, check_task, read_blip, read_karpathy
from weft.data.media.reference import MediaRef
from weft.data.records.source import MediaFiles, Source


def read(source: Source, split: str, *, task: str = "retrieval") -> Iterator[Captioned]:
    """Yield `Retrieval` records (one per caption) or `Caption` records (one per image).

    Options:
        task: "caption" or "retrieval".
    """
    check_task("flickr30k", task)
    file = source.find("dataset_flickr30k.json", f"flickr30k_{split}.json")
    archives = ["flickr30k-images.zip", "flickr30k-images.tar", "flickr30k-images.tar.gz"]
    images = MediaFiles(source, ["flickr30k-images", "flickr30k_images", "images"], archives)

    def locate(folder: str, file_name: str) -> MediaRef:
        return images.ref(file_name)

    if file.path.endswith(("dataset_flickr30k.json", "dataset_flickr30k.json.gz")):
        yield from read_karpathy(source, file, (split,), locate, task)
    else:
        yield from read_blip(source, file, locate, task)


SPEC = DatasetSpec(
    name="flickr30k",
    record_type="retrieval",
    splits=("train", "val", "test"),
    read=read,
    summary="Photos with five captions each; image-text retrieval.",
    licence="Images under Flickr terms, research only",
    citation="Young et al., TACL 2014; split of Karpathy and Fei-Fei, CVPR 2015.",
    how_to_get="Images by the form at https://shannon.cs.illinois.edu/DenotationGraph/, dataset_flickr30k.json from "
    "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip; root holds the file and "
    "flickr30k-images/.",
    bases=("", "flickr30k", "Flickr30k"),
    expected={"train": 29000, "val": 1014, "test": 1000},
    hub=(HubSource(repo="nlphuji/flickr30k", note="one split with a column `split`"),),
)
