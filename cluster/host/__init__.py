"""What one process does: build individuals, run them, score their outputs. Knows nothing of Ray."""
