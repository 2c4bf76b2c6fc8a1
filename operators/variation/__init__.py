"""Operators of evolution: crossover, mutation, selection, succession, and moves on data-flow paths. Recipes in, recipes out."""
