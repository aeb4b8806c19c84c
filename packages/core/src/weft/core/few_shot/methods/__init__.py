"""Few-shot heads: one file each, with its configuration, its computation and its registration."""
