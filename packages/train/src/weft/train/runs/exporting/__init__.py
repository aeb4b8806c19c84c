"""A run in the formats of other libraries, and the proof that it computes there what it computes here."""
