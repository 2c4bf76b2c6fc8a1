"""Requests that a model batch is asked in tests."""

from hf_engines import PAIRS

from fitness.requests import LogLikelihood, RollingLogLikelihood

REQUESTS = [
    *PAIRS,
    RollingLogLikelihood("some text " * 8),
    *(LogLikelihood("choices share a long beginning: ", f"{c}{c}") for c in "abcd"),
]
