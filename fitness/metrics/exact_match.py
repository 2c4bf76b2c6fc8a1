"""Exact match, by one teacher-forced pass or by generating; the two agree."""

from collections.abc import Sequence
from typing import Final

from fitness.examples import ANSWER, Row
from fitness.metrics.metric import Answer, ExampleScore, Metric, Options, Voting, only
from fitness.requests import Generate, LogLikelihood, LogLikelihoodOutput, Output, Request


def _literal_end(options: Options) -> str:
    return "" if options.end == "eos" else options.end


def _forced_requests(row: Row, options: Options) -> tuple[Request, ...]:
    continuation = row["answer"] + _literal_end(options)
    eos = options.end == "eos"
    return (LogLikelihood(row["prompt"], continuation, end=eos, chat=options.chat),)


def _forced_score(
    row: Row, outputs: Sequence[Output], options: Options
) -> tuple[ExampleScore, ...]:
    greedy = only(outputs, LogLikelihoodOutput).greedy
    return (ExampleScore(float(greedy), row["answer"] if greedy else None),)


def _expected(row: Row, options: Options) -> tuple[str, str]:
    """Prompt and exact answer; spaces between them belong to the answer, as in `LogLikelihood`."""
    prompt: str = row["prompt"]
    kept = prompt if options.chat else prompt.rstrip(" ")
    return kept, prompt[len(kept) :] + row["answer"] + _literal_end(options)


def _spoken_requests(row: Row, options: Options) -> tuple[Request, ...]:
    prompt, expected = _expected(row, options)
    # A token has at least one byte; EOS is one more.
    enough = max(1, len(expected.encode()) + (options.end == "eos"))
    return (Generate(prompt, max(enough, options.max_tokens or 0), chat=options.chat),)


def _spoken_answer(row: Row, outputs: Sequence[Output], options: Options) -> Answer:
    text = only(outputs, str)
    if options.end == "eos":
        return text
    if options.end:
        before, end, _ = text.partition(options.end)
        return before + end
    return text[: len(_expected(row, options)[1])]


def _spoken_answer_score(row: Row, answer: Answer, options: Options) -> float:
    return float(answer == _expected(row, options)[1])


def _spoken_score(
    row: Row, outputs: Sequence[Output], options: Options
) -> tuple[ExampleScore, ...]:
    answer = _spoken_answer(row, outputs, options)
    return (ExampleScore(_spoken_answer_score(row, answer, options), answer),)


def _no_end_in_answer(row: Row, options: Options) -> str | None:
    end = _literal_end(options)
    if end and end in row["answer"]:
        return f"'answer' contains {end!r}, which is the task's end of an answer."
    if not row["answer"] and not options.end:
        return "'answer' is empty, and no end is asked for: any output would match."
    return None


_SPOKEN = Voting(_spoken_requests, _spoken_answer, _spoken_answer_score)

EXACT_MATCH: Final = Metric(
    "exact_match",
    ANSWER,
    frozenset({"chat", "end", "max_tokens"}),
    _forced_requests,
    _forced_score,
    voting=_SPOKEN,
    check=_no_end_in_answer,
)
"""1 iff greedy decoding would give exactly the answer and then the end.

One teacher-forced pass: the greedy output is the answer iff every token of it is the arg-max.
``max_tokens`` matters to generated answers (votes) only, which never get fewer than they need.
"""

EXACT_MATCH_GENERATE: Final = Metric(
    "exact_match_generate",
    ANSWER,
    frozenset({"chat", "end", "max_tokens"}),
    _spoken_requests,
    _spoken_score,
    voting=_SPOKEN,
    check=_no_end_in_answer,
)
"""`EXACT_MATCH` by generating: slower, and says what wrong models answer.

The two agree unless an answer has several tokenisations (the text counts here, the tokens there)
or the model has a second EOS token besides the tokenizer's.
"""
