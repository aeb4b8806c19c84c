"""Adapted models: units at their sites, the banks that own the weights, tasks and their routing."""
