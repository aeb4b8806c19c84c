"""The ways of building a model: one file each, found by its name. Each has one subclass of `Reader` as `READER`."""
