"""Exact match, by one teacher-forced pass or by generating; both give the same scores."""

from collections.abc import Sequence
from typing import Final

from fitness.examples import ANSWER, Row
from fitness.metrics.metric import Answer, ExampleScore, Metric, TaskOptions, Voting, only
from fitness.requests import Generate, LogLikelihood, LogLikelihoodOutput, Output, Request


def _literal_end(options: TaskOptions) -> str:
    return "" if options.end == "eos" else options.end


def _forced_requests(row: Row, options: TaskOptions) -> tuple[Request, ...]:
    continuation = row["answer"] + _literal_end(options)
    eos = options.end == "eos"
    return (LogLikelihood(row["prompt"], continuation, end=eos, chat=options.chat),)


def _forced_score(row: Row, outputs: Sequence[Output], options: TaskOptions) -> ExampleScore:
    greedy = only(outputs, LogLikelihoodOutput).greedy
    return ExampleScore(float(greedy), row["answer"] if greedy else None)


def _expected(row: Row, options: TaskOptions) -> tuple[str, str]:
    """Prompt and exact answer; spaces between them are part of the answer, as in `LogLikelihood`."""
    prompt: str = row["prompt"]
    kept = prompt if options.chat else prompt.rstrip(" ")
    return kept, prompt[len(kept) :] + row["answer"] + _literal_end(options)


def _generated_requests(row: Row, options: TaskOptions) -> tuple[Request, ...]:
    prompt, expected = _expected(row, options)
    # A token has at least one byte; EOS is one more.
    enough = max(1, len(expected.encode()) + (options.end == "eos"))
    return (Generate(prompt, max(enough, options.max_tokens or 0), chat=options.chat),)


def _generated_answer(row: Row, outputs: Sequence[Output], options: TaskOptions) -> Answer:
    text = only(outputs, str)
    if options.end == "eos":
        return text
    if options.end:
        before, end, _ = text.partition(options.end)
        return before + end
    return text[: len(_expected(row, options)[1])]


def _generated_answer_score(row: Row, answer: Answer, options: TaskOptions) -> float:
    return float(answer == _expected(row, options)[1])


def _generated_score(row: Row, outputs: Sequence[Output], options: TaskOptions) -> ExampleScore:
    answer = _generated_answer(row, outputs, options)
    return ExampleScore(_generated_answer_score(row, answer, options), answer)


def _no_end_in_answer(row: Row, options: TaskOptions) -> str | None:
    end = _literal_end(options)
    if end and end in row["answer"]:
        return f"'answer' contains {end!r}, which is the task's end of an answer. Set another end."
    if not row["answer"] and not options.end:
        return "'answer' is empty and end is empty, so any output would match. Set one of them."
    return None


_GENERATED = Voting(_generated_requests, _generated_answer, _generated_answer_score)

EXACT_MATCH: Final = Metric(
    name="exact_match",
    requests=_forced_requests,
    score=_forced_score,
    row_format=ANSWER,
    options=frozenset({"chat", "end", "max_tokens"}),
    voting=_GENERATED,
    check=_no_end_in_answer,
)
"""1 if greedy decoding gives exactly the answer and then the end, else 0.

Computed in one teacher-forced pass: greedy decoding gives the answer if every token of it is the arg-max.
``max_tokens`` has an effect on generated answers (votes) only, which always get enough tokens for the answer.
"""

EXACT_MATCH_GENERATE: Final = Metric(
    name="exact_match_generate",
    requests=_generated_requests,
    score=_generated_score,
    row_format=ANSWER,
    options=frozenset({"chat", "end", "max_tokens"}),
    voting=_GENERATED,
    check=_no_end_in_answer,
)
"""`EXACT_MATCH` by generating: slower, and records wrong answers too.

The two differ only where an answer has several tokenisations (this one compares text, the other tokens)
or the model has a second EOS token besides the tokenizer's.
"""
