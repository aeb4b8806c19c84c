"""What tests of readers share, for this package and for readers from outside. Needs pytest and Pillow."""

from weft.eval.testing.capabilities import capabilities, markdown
from weft.eval.testing.reader_contract import ReaderContract
from weft.eval.testing.subject import Subject, picture

__all__ = ["ReaderContract", "Subject", "capabilities", "markdown", "picture"]
