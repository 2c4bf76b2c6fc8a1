"""Requests to a language model as rows of tokens, each checked against the model's context."""

from collections.abc import Sequence
from dataclasses import dataclass

from fitness.engines.base import RequestError
from fitness.engines.hf.rows.batches import PromptRow
from fitness.engines.hf.rows.prefixes import ScoredRow
from fitness.engines.hf.rows.tokens import Encoder
from fitness.requests import (
    Call,
    Generate,
    LogLikelihood,
    Request,
    RollingLogLikelihood,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How a model reads: its tokens, and how many positions it has."""

    encoder: Encoder
    context_length: int


def scored_rows(requests: Sequence[Request], limits: Limits) -> list[ScoredRow]:
    """The rows of all (rolling) log-likelihood requests, in the order of the requests.

    Raises:
        RequestError: one is of another kind, too long, or has nothing to score.
    """
    for i, request in enumerate(requests):
        if isinstance(request, Call):
            raise RequestError(
                f"request {i} calls {request.function!r} on a module, which the engine for "
                "language models does not do. Use a metric for text, or 'engine: module'."
            )
    rows = [*_pair_rows(requests, limits), *_rolling_rows(requests, limits)]
    return sorted(rows, key=lambda row: row.request)


def _pair_rows(requests: Sequence[Request], limits: Limits) -> list[ScoredRow]:
    encoder = limits.encoder
    asked = [(i, r) for i, r in enumerate(requests) if isinstance(r, LogLikelihood)]
    contexts = [encoder.render(i, r.context) if r.chat else r.context for i, r in asked]
    pairs = encoder.pairs(contexts, [r.continuation for _, r in asked], [r.chat for _, r in asked])
    rows = []
    for (i, request), (before, after) in zip(asked, pairs, strict=True):
        if request.end:
            if encoder.eos is None:
                raise RequestError(
                    f"request {i} asks for the end of the answer, but the tokenizer has no EOS "
                    "token. Set 'end' to the string that ends an answer, or to ''."
                )
            after = [*after, encoder.eos]
        if not after:
            raise RequestError(f"request {i} has an empty continuation: there is nothing to score.")
        _check_start(i, before)
        row = ScoredRow(i, before + after, len(after))
        if row.length > limits.context_length:
            raise RequestError(
                f"request {i} is too long: {len(before)} tokens of context and {len(after)} of "
                f"continuation, but the model has {limits.context_length} positions. "
                f"It begins with {request.context[:40]!r}. Shorten or remove it; nothing is cut."
            )
        rows.append(row)
    return rows


def _rolling_rows(requests: Sequence[Request], limits: Limits) -> list[ScoredRow]:
    """Windows of each text: every token is scored once, with as much before it as fits.

    The first window starts with the encoder's ``start``; a later one takes up to a whole context
    of new tokens, and fills what is left of it with those before.
    """
    start, length = limits.encoder.start, limits.context_length
    asked = [(i, r) for i, r in enumerate(requests) if isinstance(r, RollingLogLikelihood)]
    rows = []
    for (i, _), tokens in zip(asked, limits.encoder.texts([r.text for _, r in asked]), strict=True):
        _check_start(i, start)
        if not tokens:
            raise RequestError(f"request {i} has no text to score.")
        done = min(len(tokens), length - len(start) + 1)
        rows.append(ScoredRow(i, start + tokens[:done], done))
        while done < len(tokens):
            end = min(len(tokens), done + length)
            rows.append(ScoredRow(i, tokens[max(0, end - length - 1) : end], end - done))
            done = end
    return rows


def prompt_rows(requests: Sequence[Request], limits: Limits) -> list[tuple[PromptRow, float, int]]:
    """(row, temperature, seed) of all `Generate` requests.

    Raises:
        RequestError: one is too long, or asks for less than one token.
    """
    encoder = limits.encoder
    asked = [(i, r) for i, r in enumerate(requests) if isinstance(r, Generate)]
    prompts = [encoder.render(i, r.prompt) if r.chat else r.prompt for i, r in asked]
    rows = []
    encoded = encoder.contexts(prompts, [r.chat for _, r in asked])
    for (i, r), found in zip(asked, encoded, strict=True):
        ids = found or encoder.start
        _check_start(i, ids)
        if r.max_tokens < 1 or r.temperature < 0:
            raise RequestError(
                f"request {i}: max_tokens must be at least 1 and temperature 0 or more, "
                f"got {r.max_tokens} and {r.temperature}."
            )
        # The last token to come is only predicted, never read.
        if len(ids) + r.max_tokens - 1 > limits.context_length:
            raise RequestError(
                f"request {i} is too long: a prompt of {len(ids)} tokens and {r.max_tokens} to "
                f"come, but the model has {limits.context_length} positions. It begins with "
                f"{r.prompt[:40]!r}. Lower max_tokens or shorten it; nothing is cut."
            )
        rows.append((PromptRow(i, ids, r.max_tokens, r.stop), r.temperature, r.seed))
    return rows


def _check_start(index: int, context: Sequence[int]) -> None:
    if not context:
        raise RequestError(
            f"request {index} has an empty context, and the tokenizer has no BOS or EOS token to "
            "stand for it. Give it a context, or use a tokenizer with one of them."
        )
