"""The few-shot route of `weft train`: heads on a frozen encoder, side by side, over shots and seeds."""
