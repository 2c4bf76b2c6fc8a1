"""What a metric is: a frozen record of functions, over one example at a time.

One example's score never depends on another's, and no metric sees a model.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TypeVar

from fitness.examples import Row, RowFormat
from fitness.requests import Output, Request

Answer = str | int
"""What a model answered: a choice's index, or text."""


@dataclass(frozen=True, slots=True)
class Options:
    """A task's options, as `TaskSpec` describes them; ``function`` is a user's metric."""

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
            return "stop has an empty string, which would end every answer at once."
        if self.regex is not None:
            try:
                re.compile(self.regex)
            except re.error as error:
                return f"regex {self.regex!r} is not a regular expression: {error}."
        return None


@dataclass(frozen=True, slots=True)
class ExampleScore:
    """One example's score, the answer where it is known, and its weight in the mean."""

    value: float
    answer: Answer | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Voting:
    """How a model's answer is had by itself, so that an ensemble can vote on it."""

    requests: Callable[[Row, Options], tuple[Request, ...]]
    answer: Callable[[Row, Sequence[Output], Options], Answer]
    score: Callable[[Row, Answer, Options], float]
    free_text: bool = False  # answers are seldom equal: take the medoid, not the majority


@dataclass(frozen=True, slots=True)
class Metric:
    """One way to score.

    Attributes:
        shape: what its rows look like; None when it takes a string of data instead of a file.
        options: the names of the options it reads.
        requests: what an example asks of the model.
        score: outputs of those requests, in order -> scores: one, but for `CALL`, which alone
            knows how many examples it has.
        voting: None when there is no answer to vote on.
        check: what is wrong with a row for this metric beyond its shape, or None.
        weighted: examples weigh differently in the mean.
    """

    name: str
    row_format: RowFormat | None
    options: frozenset[str]
    requests: Callable[[Row, Options], tuple[Request, ...]]
    score: Callable[[Row, Sequence[Output], Options], tuple[ExampleScore, ...]]
    higher_is_better: bool = True
    voting: Voting | None = None
    check: Callable[[Row, Options], str | None] | None = None
    weighted: bool = False


Kind = TypeVar("Kind")


def all_of(outputs: Sequence[Output], kind: type[Kind]) -> list[Kind]:
    """``outputs``, which are all of ``kind``."""
    return [_is(o, kind) for o in outputs]


def only(outputs: Sequence[Output], kind: type[Kind]) -> Kind:
    """The one output there is, of ``kind``."""
    (output,) = outputs
    return _is(output, kind)


def _is(output: Output, kind: type[Kind]) -> Kind:
    if not isinstance(output, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(output).__name__}")
    return output
