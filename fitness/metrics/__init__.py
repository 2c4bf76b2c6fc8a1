"""Metrics: what examples ask of a model, and how outputs are scored. `METRICS` is the table of them, by name.

`metric` has the types. Engines, which answer the requests, do not belong here; nor do the files of
examples, which `fitness.tasks` reads. Importing this package does not import torch.
"""

from collections.abc import Mapping, Sequence
from math import log
from typing import Final

from fitness.examples import TEXT, Row
from fitness.metrics.exact_match import EXACT_MATCH, EXACT_MATCH_GENERATE
from fitness.metrics.generated_text import FUNCTION, NUMERIC_MATCH
from fitness.metrics.metric import ExampleScore, Metric, TaskOptions, only
from fitness.metrics.multiple_choice import ACCURACY, ACCURACY_NORM
from fitness.requests import (
    Call,
    CallOutput,
    Output,
    Request,
    RollingLogLikelihood,
    RollingOutput,
)


def _rolling_requests(row: Row, options: TaskOptions) -> tuple[Request, ...]:
    return (RollingLogLikelihood(row["text"]),)


def _bits_score(row: Row, outputs: Sequence[Output], options: TaskOptions) -> ExampleScore:
    size = len(row["text"].encode())
    bits = -only(outputs, RollingOutput).logprob / log(2)
    return ExampleScore(bits / size, weight=float(size))


BITS_PER_BYTE: Final = Metric(
    name="bits_per_byte",
    requests=_rolling_requests,
    score=_bits_score,
    row_format=TEXT,
    higher_is_better=False,
    weighted=True,
)
"""Bits to encode a text, divided by its UTF-8 bytes; lower is better.

An example's weight is its number of bytes, so that the mean is the bits of all texts over their bytes.
"""


def _call_requests(row: Row, options: TaskOptions) -> tuple[Request, ...]:
    return (Call(options.function, row["data"]),)


def _call_score(
    row: Row, outputs: Sequence[Output], options: TaskOptions
) -> tuple[ExampleScore, ...]:
    return tuple(ExampleScore(v) for v in only(outputs, CallOutput).values)


CALL: Final = Metric(name="call", requests=_call_requests, score=_call_score, row_format=None)
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
"""All metrics. A config can't name FUNCTION and CALL: it names a user's function, "package.module:name"."""
