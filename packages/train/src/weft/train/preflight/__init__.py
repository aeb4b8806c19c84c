"""What is loaded and checked before any long work starts: records, features, the fit of model and method."""
