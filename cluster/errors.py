"""Errors of checkpoints, pools and clusters. Imports nothing heavy."""

from operators.errors import EvoError


class CheckpointError(EvoError):
    """A checkpoint or adapter folder can't be used; the message names the file and the remedy."""


class PoolError(EvoError):
    """A pool or cluster can't be used: it refuses access, or its hosts fail to start or keep dying."""
