"""Data sets: a module defines `SPEC` (a `DatasetSpec`), or `SPECS` for a family, and is found by its presence."""
