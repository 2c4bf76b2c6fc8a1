"""Individuals as ordinary checkpoints and adapters."""
