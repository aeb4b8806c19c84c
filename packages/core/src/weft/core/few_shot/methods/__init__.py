"""Few-shot heads: one file each, with configuration and computation."""
