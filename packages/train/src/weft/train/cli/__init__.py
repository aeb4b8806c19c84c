"""The `weft` command line. Heavy libraries are imported inside the commands, so that `--help` is quick."""

from weft.train.cli.app import main

__all__ = ["main"]
