"""EvoError, the one family of errors that a user can mend. Each package derives its own from it."""


class EvoError(ValueError):
    """Says what happened, where, and what to do next. Shown without a traceback, with exit code 2.

    A ``ValueError``, so that a config's validators report it with the key that it belongs to.
    """
