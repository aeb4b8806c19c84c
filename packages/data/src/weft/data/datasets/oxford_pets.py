"""Oxford-IIIT Pets: 37 breeds of cats and dogs, with CoOp's split."""

from weft.data.datasets._coop import coop_set

SPEC = coop_set(
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
)
