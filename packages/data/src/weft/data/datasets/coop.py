"""The nine sets that CoOp divides, for few-shot classification: each a split file and folders of images.

A split file is `{"train": [["path.jpg", 3, "class name"], ...], "val": [...], "test": [...]}`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from weft.data.catalog import DatasetSpec, HubSource
from weft.data.records.classify import Classify
from weft.data.records.rows import Row
from weft.data.records.source import MediaFiles, Source

LAYOUTS: dict[str, tuple[str, str]] = {}
"""Data set to the name of its split file and the folder that the paths of the file usually start from."""

_SPLITS_DIFFER = "its splits are not those of the split file"
_HOW_TO_GET_SPLIT = (
    "The split file {file} is linked in CoOp's DATASETS.md (https://github.com/KaiyangZhou/CoOp); published few-shot "
    "numbers hold for it alone, splits of hub copies differ."
)


def coop_set(
    name: str,
    *,
    split_file: str,
    image_folders: Sequence[str],
    how_to_get: str,
    hub_copy: str = "",
    **facts: Any,
) -> DatasetSpec:
    """Return a data set that CoOp's split file divides: one `Classify` per row of it, in its order.

    Args:
        name: Name of the data set.
        split_file: Official name, such as `split_zhou_Food101.json`.
        image_folders: Folders that the paths of the file may start from, "" for the root.
        how_to_get: Where the images come from.
        hub_copy: A copy on the hub, whose splits are other ones.
        **facts: What else a `DatasetSpec` says.
    """
    LAYOUTS[name] = (split_file, image_folders[0])
    endings = (".zip", ".tar", ".tar.gz", ".tgz")
    archives = [f"{folder}{ending}" for folder in image_folders if folder for ending in endings]

    def read(source: Source, split: str) -> Iterator[Classify]:
        file = source.find(split_file)
        rows = [Row(row, file.name, f"{split}[{k}]") for k, row in enumerate(file.top().items(split))]
        images = MediaFiles(source, image_folders, archives)

        def make(row: Row) -> Classify:
            path, label = row.text(0), row.integer(1)
            if label < 0:
                row.fail(f"the label must not be negative, but is {label}")
            return Classify(id=path, image=images.ref(path), label=label, class_name=row.text(2))

        yield from source.build(rows, make)

    return DatasetSpec(
        name=name,
        record_type="classify",
        splits=("train", "val", "test"),
        read=read,
        how_to_get=f"{how_to_get} {_HOW_TO_GET_SPLIT.format(file=split_file)}",
        hub=(HubSource(repo=hub_copy, note=_SPLITS_DIFFER),) if hub_copy else (),
        **facts,
    )


SPECS = (
    coop_set(
        "caltech101",
        split_file="split_zhou_Caltech101.json",
        image_folders=("101_ObjectCategories", "caltech-101/101_ObjectCategories", ""),
        summary="Objects in 100 classes.",
        licence="CC BY 4.0",
        citation="Fei-Fei, Fergus, Perona, CVPR workshop 2004.",
        how_to_get="101_ObjectCategories.tar.gz from https://data.caltech.edu/records/mzrjq-6wc02; root is "
        "caltech-101/.",
        bases=("", "caltech-101", "caltech101", "Caltech101"),
        expected={"train": 4128, "val": 1649, "test": 2465},
        hub_copy="dpdl-benchmark/caltech101",
    ),
    coop_set(
        "dtd",
        split_file="split_zhou_DescribableTextures.json",
        image_folders=("images", ""),
        summary="Textures in 47 classes.",
        licence="research use",
        citation="Cimpoi et al., CVPR 2014.",
        how_to_get="dtd-r1.0.1.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/dtd/; root is dtd/.",
        bases=("", "dtd", "DTD"),
        expected={"train": 2820, "val": 1128, "test": 1692},
        hub_copy="tanganke/dtd",
    ),
    coop_set(
        "eurosat",
        split_file="split_zhou_EuroSAT.json",
        image_folders=("2750", ""),
        summary="Satellite images of land use in 10 classes.",
        licence="MIT",
        citation="Helber et al., JSTARS 2019.",
        how_to_get="EuroSAT.zip from http://madm.dfki.de/files/sentinel/EuroSAT.zip; root is eurosat/ with 2750/.",
        bases=("", "eurosat", "EuroSAT"),
        expected={"train": 13500, "val": 5400, "test": 8100},
        hub_copy="blanchon/EuroSAT_RGB",
    ),
    coop_set(
        "flowers102",
        split_file="split_zhou_OxfordFlowers.json",
        image_folders=("jpg", "images", ""),
        summary="Flowers of 102 kinds.",
        licence="not stated",
        citation="Nilsback and Zisserman, ICVGIP 2008.",
        how_to_get="102flowers.tgz from https://www.robots.ox.ac.uk/~vgg/data/flowers/102/; root is oxford_flowers/.",
        bases=("", "oxford_flowers", "flowers102", "Flower102"),
        expected={"train": 4093, "val": 1633, "test": 2463},
        hub_copy="dpdl-benchmark/oxford_flowers102",
    ),
    coop_set(
        "food101",
        split_file="split_zhou_Food101.json",
        image_folders=("images", ""),
        summary="Dishes in 101 classes.",
        licence="not stated",
        citation="Bossard, Guillaumin, Van Gool, ECCV 2014.",
        how_to_get="food-101.tar.gz from https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/; root is "
        "food-101/.",
        bases=("", "food-101", "food101", "Food101"),
        expected={"train": 50500, "val": 20200, "test": 30300},
        hub_copy="ethz/food101",
    ),
    coop_set(
        "oxford_pets",
        split_file="split_zhou_OxfordPets.json",
        image_folders=("images", ""),
        summary="Cats and dogs of 37 breeds.",
        licence="CC BY-SA 4.0",
        citation="Parkhi et al.: Cats and Dogs, CVPR 2012.",
        how_to_get="images.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/pets/; root is oxford_pets/.",
        bases=("", "oxford_pets", "oxfordpets", "OxfordPets"),
        expected={"train": 2944, "val": 736, "test": 3669},
        hub_copy="timm/oxford-iiit-pet",
    ),
    coop_set(
        "stanford_cars",
        split_file="split_zhou_StanfordCars.json",
        image_folders=("", "images"),
        summary="Cars of 196 models.",
        licence="unclear",
        citation="Krause et al., ICCV workshop 2013.",
        how_to_get="cars_train.tgz and cars_test.tgz; root is stanford_cars/ with cars_train/ and cars_test/.",
        bases=("", "stanford_cars", "stanfordcars", "StanfordCars"),
        expected={"train": 6509, "val": 1635, "test": 8041},
        hub_copy="tanganke/stanford_cars",
    ),
    coop_set(
        "sun397",
        split_file="split_zhou_SUN397.json",
        image_folders=("SUN397", ""),
        summary="Scenes in 397 classes.",
        licence="academic use",
        citation="Xiao et al., CVPR 2010.",
        how_to_get="SUN397.tar.gz from https://vision.princeton.edu/projects/2010/SUN/; root is sun397/ with "
        "SUN397/a/abbey/...",
        bases=("", "sun397", "SUN397"),
        expected={"train": 15880, "val": 3970, "test": 19850},
        hub_copy="tanganke/sun397",
    ),
    coop_set(
        "ucf101",
        split_file="split_zhou_UCF101.json",
        image_folders=("UCF-101-midframes", ""),
        summary="Middle frames of videos of 101 actions.",
        licence="not stated",
        citation="Soomro, Zamir, Shah, 2012.",
        how_to_get="UCF-101-midframes.zip as linked by CoOp; root is ucf101/.",
        bases=("", "ucf101", "UCF101"),
        expected={"train": 7639, "val": 1898, "test": 3783},
    ),
)
