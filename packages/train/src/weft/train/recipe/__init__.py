"""Recipes: one YAML file is one run. What may stand in it, where it is found, and what is wrong with it."""
