"""Records in Parquet shards: written, opened, streamed in shuffled order."""
