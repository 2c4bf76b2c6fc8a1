"""Shared by tests: taken out of test_engine_hf."""

from fitness.requests import (
    LogLikelihood,
)

PAIRS = [
    LogLikelihood("the sum 1+2=", "3", end=True),
    LogLikelihood("a", "bc"),
    LogLikelihood("", "hello"),
    LogLikelihood("trailing spaces  ", "move"),
    LogLikelihood("new line\n", "stays"),
    LogLikelihood("empty answer", "", end=True),
    LogLikelihood("x" * 30, "y" * 15, end=True),
    LogLikelihood("a", "bc"),
]
