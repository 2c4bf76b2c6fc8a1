"""What a model is asked and how the answer is scored."""
