"""What a run writes and shows: folders that are claimed, files that are whole or not there, results, progress."""
