"""Adapters for vision-and-language models whose weight sharing is declared, not coded."""
