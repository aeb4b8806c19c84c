"""Rendered scenes: what is in them, how they look, and what can be said about them."""
