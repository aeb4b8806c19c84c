"""Official vision-and-language metrics, evaluators, MLflow tracking and comparison reports."""
