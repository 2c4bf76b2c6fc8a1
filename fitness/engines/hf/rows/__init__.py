"""Requests as rows of tokens, and rows as batches. Nothing here sees weights."""
