"""The family of errors that a user can mend, under the name that users import."""

from operators.errors import EvoError

__all__ = ["EvoError"]
