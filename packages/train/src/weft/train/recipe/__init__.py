"""Recipes: one YAML file is one run. What it may contain, where it is found, and what is wrong with it."""
