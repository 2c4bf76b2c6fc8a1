"""Drawings for the terminal: a recipe, a family tree, and founders' shares."""
