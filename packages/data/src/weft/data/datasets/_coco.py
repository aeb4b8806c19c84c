"""Where COCO images are, and how their files are named."""

from weft.data.media.reference import MediaRef
from weft.data.records.source import MediaFiles, Source


class CocoImages:
    """Finds `COCO_val2014_000000000042.jpg` and the like, in folders or zips, one subset at a time."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._subsets: dict[str, MediaFiles] = {}

    def by_number(self, subset: str, image_id: str) -> MediaRef:
        """Return the image with an official number, as text, in the folder of `subset`, such as "val2014"."""
        return self.by_name(subset, f"COCO_{subset}_{image_id.zfill(12)}.jpg")

    def by_name(self, subset: str, file_name: str) -> MediaRef:
        """Return the image with a file name, in the folder of `subset`."""
        above = ("", "images/", "COCO/images/", "COCO/", "coco/images/")
        folders = [f"{folder}{subset}" for folder in above]
        archives = (f"{subset}.zip", f"images/{subset}.zip", f"COCO/{subset}.zip")
        files = MediaFiles(self._source, folders, archives, what=f"images of {subset}")
        return self._subsets.setdefault(subset, files).ref(file_name)

    def by_stem(self, stem: str) -> MediaRef:
        """Return the image named without ending, such as `COCO_val2014_000000000042`."""
        return self.by_name(stem.split("_")[1], f"{stem}.jpg")


def is_coco_stem(stem: str) -> bool:
    """Tell whether `stem` has the form `COCO_SUBSET_NUMBER`."""
    parts = stem.split("_")
    return len(parts) == 3 and parts[0] == "COCO" and parts[2].isdigit()
