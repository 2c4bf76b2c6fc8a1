"""What can be wrong with the files of a model, and with a pool or cluster. Imports nothing heavy."""


class CheckpointError(ValueError):
    """A checkpoint or adapter folder can't be used; the message names the file and the remedy."""


class PoolError(RuntimeError):
    """A pool or cluster can't be used: it refuses us, hosts fail to start, or die without end."""
