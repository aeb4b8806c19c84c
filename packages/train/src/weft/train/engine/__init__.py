"""Training: the loop, its batches and losses, checkpoints, sharding, and how it ends."""
