"""What can be wrong with the files of a model, and with a pool or cluster. Imports nothing heavy."""

from operators.errors import EvoError


class CheckpointError(EvoError):
    """A checkpoint or adapter folder can't be used; the message names the file and the remedy."""


class PoolError(EvoError):
    """A pool or cluster can't be used: it refuses us, hosts fail to start, or die without end."""
