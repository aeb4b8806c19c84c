"""Decoding and transforming images and videos with Pillow and numpy."""
