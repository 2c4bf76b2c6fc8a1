"""Recipes and founders in, weights out: sums, merges, noise, low-rank factors and paths. No files."""
