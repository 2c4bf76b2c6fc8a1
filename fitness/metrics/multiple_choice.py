"""Which of several choices does a model find most likely?"""

from collections.abc import Sequence
from typing import Final

from fitness.examples import CHOICES, Row
from fitness.metrics.metric import Answer, ExampleScore, Metric, Options, Voting, all_of
from fitness.requests import LogLikelihood, LogLikelihoodOutput, Output, Request


def _choice_requests(row: Row, options: Options) -> tuple[Request, ...]:
    return tuple(LogLikelihood(row["prompt"], c, chat=options.chat) for c in row["choices"])


def _choice(row: Row, outputs: Sequence[Output], options: Options) -> Answer:
    return _best([o.logprob for o in all_of(outputs, LogLikelihoodOutput)])


def _choice_per_byte(row: Row, outputs: Sequence[Output], options: Options) -> Answer:
    logprobs = [o.logprob for o in all_of(outputs, LogLikelihoodOutput)]
    return _best([p / len(c.encode()) for p, c in zip(logprobs, row["choices"], strict=True)])


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: (values[i], -i))


def _choice_score(row: Row, answer: Answer, options: Options) -> float:
    return float(answer == row["label"])


def _accuracy_score(
    row: Row, outputs: Sequence[Output], options: Options
) -> tuple[ExampleScore, ...]:
    answer = _choice(row, outputs, options)
    return (ExampleScore(_choice_score(row, answer, options), answer),)


def _accuracy_norm_score(
    row: Row, outputs: Sequence[Output], options: Options
) -> tuple[ExampleScore, ...]:
    answer = _choice_per_byte(row, outputs, options)
    return (ExampleScore(_choice_score(row, answer, options), answer),)


ACCURACY: Final = Metric(
    "accuracy",
    CHOICES,
    frozenset({"chat"}),
    _choice_requests,
    _accuracy_score,
    voting=Voting(_choice_requests, _choice, _choice_score),
)
"""1 iff the right choice has the highest log-likelihood; of equals, the first is chosen.

A choice is appended to the prompt as it stands: give it its leading space where it needs one.
"""

ACCURACY_NORM: Final = Metric(
    "accuracy_norm",
    CHOICES,
    frozenset({"chat"}),
    _choice_requests,
    _accuracy_norm_score,
    voting=Voting(_choice_requests, _choice_per_byte, _choice_score),
)
"""`ACCURACY` with each log-likelihood divided by its choice's UTF-8 bytes, so length is no handicap."""
