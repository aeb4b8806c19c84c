"""Data sets, one module each. A module defines `SPEC` (a `DatasetSpec`) and is found by its presence."""
