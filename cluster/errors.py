"""What can be wrong with the files of a model."""


class CheckpointError(ValueError):
    """A checkpoint or adapter folder can't be used; the message names the file and the remedy."""
