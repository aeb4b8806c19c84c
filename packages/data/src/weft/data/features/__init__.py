"""The one store of features: what frozen encoders gave, by the identity of what they were given."""
