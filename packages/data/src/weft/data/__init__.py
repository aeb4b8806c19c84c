"""Loaders, few-shot protocol, task mixing and feature stores for vision-and-language data."""
