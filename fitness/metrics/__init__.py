"""How an answer is scored: `METRICS`, the one visible table."""

from collections.abc import Mapping, Sequence
from math import log
from typing import Final

from fitness.examples import TEXT, Row
from fitness.metrics.exact_match import EXACT_MATCH, EXACT_MATCH_GENERATE
from fitness.metrics.generated_text import FUNCTION, NUMERIC_MATCH
from fitness.metrics.metric import ExampleScore, Metric, Options, only
from fitness.metrics.multiple_choice import ACCURACY, ACCURACY_NORM
from fitness.requests import (
    Call,
    CallOutput,
    Output,
    Request,
    RollingLogLikelihood,
    RollingOutput,
)


def _rolling_requests(row: Row, options: Options) -> tuple[Request, ...]:
    return (RollingLogLikelihood(row["text"]),)


def _bits_score(row: Row, outputs: Sequence[Output], options: Options) -> tuple[ExampleScore, ...]:
    size = len(row["text"].encode())
    bits = -only(outputs, RollingOutput).logprob / log(2)
    return (ExampleScore(bits / size, weight=float(size)),)


BITS_PER_BYTE: Final = Metric(
    "bits_per_byte",
    TEXT,
    frozenset(),
    _rolling_requests,
    _bits_score,
    higher_is_better=False,
    weighted=True,
)
"""Bits to encode a text, over its UTF-8 bytes: lower is better.

An example's weight is its bytes, so that the mean is the whole corpus's bits over its bytes.
"""


def _call_requests(row: Row, options: Options) -> tuple[Request, ...]:
    return (Call(options.function, row["data"]),)


def _call_score(row: Row, outputs: Sequence[Output], options: Options) -> tuple[ExampleScore, ...]:
    return tuple(ExampleScore(v) for v in only(outputs, CallOutput).values)


CALL: Final = Metric("call", None, frozenset(), _call_requests, _call_score)
"""A user's ``f(module, data: str) -> Sequence[float]``, one score an example; higher is better."""


METRICS: Final[Mapping[str, Metric]] = {
    m.name: m
    for m in (
        EXACT_MATCH,
        EXACT_MATCH_GENERATE,
        ACCURACY,
        ACCURACY_NORM,
        BITS_PER_BYTE,
        NUMERIC_MATCH,
        FUNCTION,
        CALL,
    )
}
"""All metrics. FUNCTION and CALL are asked for by a function's name, "package.module:name"."""
