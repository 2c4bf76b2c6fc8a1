"""Accuracy on multiple-choice questions: the choice with the highest log-likelihood is the answer."""

from collections.abc import Sequence
from typing import Final

from fitness.examples import CHOICES, Row
from fitness.metrics.metric import Answer, ExampleScore, Metric, TaskOptions, Voting, all_of
from fitness.requests import LogLikelihood, LogLikelihoodOutput, Output, Request


def _choice_requests(row: Row, options: TaskOptions) -> tuple[Request, ...]:
    return tuple(LogLikelihood(row["prompt"], c, chat=options.chat) for c in row["choices"])


def _choice(row: Row, outputs: Sequence[Output], options: TaskOptions) -> Answer:
    return _best([o.logprob for o in all_of(outputs, LogLikelihoodOutput)])


def _choice_per_byte(row: Row, outputs: Sequence[Output], options: TaskOptions) -> Answer:
    logprobs = [o.logprob for o in all_of(outputs, LogLikelihoodOutput)]
    return _best([p / len(c.encode()) for p, c in zip(logprobs, row["choices"], strict=True)])


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: (values[i], -i))


def _choice_score(row: Row, answer: Answer, options: TaskOptions) -> float:
    return float(answer == row["label"])


def _accuracy_score(row: Row, outputs: Sequence[Output], options: TaskOptions) -> ExampleScore:
    answer = _choice(row, outputs, options)
    return ExampleScore(_choice_score(row, answer, options), answer)


def _accuracy_norm_score(row: Row, outputs: Sequence[Output], options: TaskOptions) -> ExampleScore:
    answer = _choice_per_byte(row, outputs, options)
    return ExampleScore(_choice_score(row, answer, options), answer)


ACCURACY: Final = Metric(
    name="accuracy",
    requests=_choice_requests,
    score=_accuracy_score,
    row_format=CHOICES,
    options=frozenset({"chat"}),
    voting=Voting(_choice_requests, _choice, _choice_score),
)
"""1 if the right choice has the highest log-likelihood, else 0; of equal choices the first counts.

A choice is appended to the prompt unchanged, so it must start with a space where it needs one.
"""

ACCURACY_NORM: Final = Metric(
    name="accuracy_norm",
    requests=_choice_requests,
    score=_accuracy_norm_score,
    row_format=CHOICES,
    options=frozenset({"chat"}),
    voting=Voting(_choice_requests, _choice_per_byte, _choice_score),
)
"""`ACCURACY` with each log-likelihood divided by the UTF-8 bytes of its choice, to correct for length."""
