"""Records of one type per task, and what makes them of annotation files, columns and the hub."""
