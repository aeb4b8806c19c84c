"""The adapter bottleneck: down-projection, activation, up-projection, routed over tasks."""
