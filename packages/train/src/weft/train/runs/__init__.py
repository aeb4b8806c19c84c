"""The kinds of runs, and what is made of finished ones."""
