"""Metrics of generated text: its last number is right, or a user's function scores it."""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Final

from fitness.examples import NUMBER, Row
from fitness.functions import load_function
from fitness.metrics.metric import Answer, ExampleScore, Metric, TaskOptions, Voting, only
from fitness.requests import Generate, Output, Request

DEFAULT_MAX_TOKENS: Final = 256
# A sign after a word or digit is a dash: "10-12" ends in 12.
NUMBER_PATTERN: Final = r"(?:(?<!\w)[-+])?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def _generate_requests(row: Row, options: TaskOptions) -> tuple[Request, ...]:
    return (
        Generate(
            row["prompt"],
            DEFAULT_MAX_TOKENS if options.max_tokens is None else options.max_tokens,
            stop=options.stop,
            temperature=options.temperature,
            seed=options.seed,
            chat=options.chat,
        ),
    )


def extract_number(text: str, regex: str | None = None) -> str:
    """The last number in ``text`` in plain canonical form ("1,500.0" -> "1500"), or "".

    Args:
        regex: replaces the pattern of numbers. The last match counts: its first group if it has one, else
            all of it. Where that is not a number, the result is "".
    """
    matches = list(re.finditer(regex or NUMBER_PATTERN, text))
    if not matches:
        return ""
    last = matches[-1]
    found = (last.group(1) if last.re.groups else last.group()) or ""
    try:
        number = Decimal(found.replace(",", "").strip().lstrip("$").rstrip("."))
    except InvalidOperation:
        return ""
    if not number.is_finite():
        return ""
    # Not normalize(): it rounds to the context's 28 digits.
    plain = str(number) if abs(number.adjusted()) > 400 else format(number, "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain and "E" not in plain else plain
    return "0" if plain in ("-0", "+0") else plain


def _number(row: Row, outputs: Sequence[Output], options: TaskOptions) -> Answer:
    return extract_number(only(outputs, str), options.regex)


def _number_answer_score(row: Row, answer: Answer, options: TaskOptions) -> float:
    return float(answer != "" and answer == extract_number(str(row["answer"])))


def _number_score(row: Row, outputs: Sequence[Output], options: TaskOptions) -> ExampleScore:
    answer = _number(row, outputs, options)
    return ExampleScore(_number_answer_score(row, answer, options), answer)


def _has_number(row: Row, options: TaskOptions) -> str | None:
    if extract_number(str(row["answer"])):
        return None
    return f"'answer' has no number in it: {str(row['answer'])[:60]!r}."


_GENERATION = frozenset({"max_tokens", "stop", "chat", "temperature", "seed"})

NUMERIC_MATCH: Final = Metric(
    name="numeric_match",
    requests=_generate_requests,
    score=_number_score,
    row_format=NUMBER,
    options=_GENERATION | {"regex"},
    voting=Voting(_generate_requests, _number, _number_answer_score),
    check=_has_number,
)
"""1 if the last number of the generated text equals the last number of the answer, as decimals, else 0.

Commas are removed; "18", "18.0" and "1.8e1" are equal. ``regex`` finds the number in the output.
"""


def _text_answer(row: Row, outputs: Sequence[Output], options: TaskOptions) -> Answer:
    return only(outputs, str)


def _function_answer_score(row: Row, answer: Answer, options: TaskOptions) -> float:
    return load_function(options.function)(dict(row), answer)  # type: ignore[no-any-return]


def _function_score(row: Row, outputs: Sequence[Output], options: TaskOptions) -> ExampleScore:
    answer = _text_answer(row, outputs, options)
    return ExampleScore(_function_answer_score(row, answer, options), answer)


FUNCTION: Final = Metric(
    name="function",
    requests=_generate_requests,
    score=_function_score,
    options=_GENERATION,
    voting=Voting(_generate_requests, _text_answer, _function_answer_score, free_text=True),
)
"""A user's ``f(example: dict, output: str) -> float`` on generated text; higher is better.

``example`` has all keys of its row. A config names the function, "package.module:name", not this metric.
"""
