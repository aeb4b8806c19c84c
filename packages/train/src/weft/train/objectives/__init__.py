"""Objectives: from a batch to one loss per example."""
