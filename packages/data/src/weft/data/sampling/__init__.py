"""What is drawn and in which order: mixtures of tasks, quotas, few-shot draws and the loader."""
