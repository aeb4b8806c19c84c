"""`python -m weft.train …` is `weft train …`, for `torchrun` and `accelerate launch`."""

import sys

from weft.train.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
