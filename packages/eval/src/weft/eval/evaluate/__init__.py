"""Running models on records: inputs, predictions, scores and blind baselines."""
