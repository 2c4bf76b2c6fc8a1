"""Tasks: examples in splits, what they ask of a model, and how their answers are scored."""
