"""The one type of error that is the user's to mend: shown without a traceback, exit code 2."""


class UserError(ValueError):
    """Says what happened, where, and what to do next."""
