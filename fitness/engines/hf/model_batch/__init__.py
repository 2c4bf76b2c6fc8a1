"""Model batches: several individuals in one forward pass."""
