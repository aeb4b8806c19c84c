"""How things are measured: sides take turns, each in a process of its own, and results say where they come from."""
