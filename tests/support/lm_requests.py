"""Requests to a language model: pairs of prompt and answer, and all kinds that one forward pass takes."""

from fitness.requests import LogLikelihood, RollingLogLikelihood

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

REQUESTS = [
    *PAIRS,
    RollingLogLikelihood("some text " * 8),
    *(LogLikelihood("choices share a long beginning: ", f"{c}{c}") for c in "abcd"),
]
