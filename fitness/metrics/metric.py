"""Metric: a frozen record of functions that ask a model about one example and score its outputs.

An example's score never depends on other examples, and a metric never sees a model.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, TypeVar

from fitness.examples import PROMPT, Row, RowFormat, TaskError
from fitness.requests import Output, Request

Answer = str | int
"""A model's answer: the index of a choice, or text."""


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """The options of a task that metrics read; `fitness.tasks.spec.TaskSpec` describes them.

    ``function`` is the name of a user's function, for `FUNCTION` and `CALL`.
    """

    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    regex: str | None = None
    chat: bool = False
    end: str = "eos"
    temperature: float = 0.0
    seed: int = 0
    function: str = ""

    def problem(self) -> str | None:
        """What is wrong with these options, or None."""
        if self.max_tokens is not None and self.max_tokens < 1:
            return f"max_tokens must be at least 1, got {self.max_tokens}."
        if not (isfinite(self.temperature) and self.temperature >= 0):
            return f"temperature must be 0 or more, got {self.temperature}."
        if "" in self.stop:
            return "stop contains an empty string, which would end every output at its start."
        if self.regex is not None:
            try:
                re.compile(self.regex)
            except re.error as error:
                return f"regex {self.regex!r} is not a regular expression: {error}."
        return None


@dataclass(frozen=True, slots=True)
class ExampleScore:
    """The score of one example, the model's answer if there is one, and the example's weight in the mean."""

    value: float
    answer: Answer | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Voting:
    """How to ask a model for its answer alone, so that an ensemble of models can vote.

    Attributes:
        requests: what an example asks of a model.
        answer: the answer in the outputs of these requests, which are in the same order.
        score: the score of an answer.
        free_text: two answers are rarely equal, so the ensemble's answer is the medoid, not the majority's.
    """

    requests: Callable[[Row, TaskOptions], tuple[Request, ...]]
    answer: Callable[[Row, Sequence[Output], TaskOptions], Answer]
    score: Callable[[Row, Answer, TaskOptions], float]
    free_text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One way to score a model on examples.

    Examples:
        >>> def ask(row, options):
        ...     return (evo.LogLikelihood(row["prompt"], row["answer"]),)
        >>> def score(row, outputs, options):
        ...     return outputs[0].logprob / len(row["answer"])
        >>> FORMAT = evo.RowFormat('{"prompt": "2+2=", "answer": "4"}')
        >>> LOGPROB = evo.Metric(name="logprob", requests=ask, score=score, row_format=FORMAT)
        >>> task = evo.TaskConfig(name="sums", files="tasks/sums", metric=LOGPROB)

    Attributes:
        name: shown in reports.
        requests: what an example asks of the model. Equal rows give equal requests.
        score: a number or an `ExampleScore`, from the outputs of ``requests``, which are in the same order.
            With a `Call` it may be a tuple of them, as only the called function knows its examples.
        row_format: the rows it takes; None where it takes a string of the config's ``data``, in
            ``row["data"]``, instead of a file.
        options: the names of the task's options that it reads; other options are refused.
        voting: None where a model gives no answer to vote on.
        check: what is wrong with a row beyond its format, or None.
        weighted: examples have different weights in the mean.
    """

    name: str
    requests: Callable[[Row, TaskOptions], tuple[Request, ...]]
    score: Callable[
        [Row, Sequence[Output], TaskOptions], float | ExampleScore | tuple[ExampleScore, ...]
    ]
    row_format: RowFormat | None = PROMPT
    options: frozenset[str] = frozenset()
    higher_is_better: bool = True
    voting: Voting | None = None
    check: Callable[[Row, TaskOptions], str | None] | None = None
    weighted: bool = False

    def example_scores(
        self, row: Row, outputs: Sequence[Output], options: TaskOptions
    ) -> tuple[ExampleScore, ...]:
        """The scores that ``score`` gives: one, or with a `Call` as many as the called function returned.

        Raises:
            TaskError: ``score`` returned something else than finite numbers.
        """
        returned = self.score(row, outputs, options)
        given = returned if isinstance(returned, tuple) else (returned,)
        return tuple(checked_score(options.function or self.name, row, each) for each in given)


def checked_score(metric: str, row: Row, returned: Any) -> ExampleScore:
    """``returned``, an `ExampleScore` or a number, as an `ExampleScore` with a finite value.

    Raises:
        TaskError: it is neither, or not finite; the message names ``metric`` and the row.
    """
    found = returned if isinstance(returned, ExampleScore) else ExampleScore(returned)
    try:
        value = float(found.value)
    except (TypeError, ValueError):
        value = float("nan")
    if not isfinite(value):
        raise TaskError(
            f"metric {metric!r} returned {found.value!r} for the example {dict(row)!r}. "
            "It must return a finite number."
        )
    return ExampleScore(value, found.answer, found.weight)


Kind = TypeVar("Kind")


def all_of(outputs: Sequence[Output], kind: type[Kind]) -> list[Kind]:
    """``outputs``, all of which must be of ``kind``.

    Raises:
        TypeError: one is not.
    """
    for output in outputs:
        if not isinstance(output, kind):
            raise TypeError(f"expected {kind.__name__}, got {type(output).__name__}")
    return list(outputs)  # type: ignore[arg-type]


def only(outputs: Sequence[Output], kind: type[Kind]) -> Kind:
    """The single output, which must be of ``kind``."""
    (output,) = all_of(outputs, kind)
    return output
