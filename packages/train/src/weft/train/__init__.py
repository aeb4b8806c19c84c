"""Recipes, multi-task training and the weft command line."""
