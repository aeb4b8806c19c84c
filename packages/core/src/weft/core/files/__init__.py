"""What is on disk: checkpoints of adapters, the hub, and the formats of other libraries."""
