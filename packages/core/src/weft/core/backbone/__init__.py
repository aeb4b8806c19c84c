"""Backbones: their sites and addresses, the families that name them, and what a backbone is known by."""
