"""Vocabularies put in order by string: which token has which id, and where each model's row for it is.

Pure planning and arithmetic; files are :mod:`evo.vocabulary.files`'s. A model's *table* is a tensor with
one row for each id: its embedding, its head, or the head's bias.

The rules, as mergekit's ``tokenizer_source`` has them:

- a token's row is the model's own where it has the token;
- else the base's, where the base has it;
- else the mean of the rows of all models that have it;
- ids without a token (padding) keep their rows in the model whose tokenizer is used and in those with
  the same tokens; the other models take the rows of that one. A token that no model has a row for
  takes zeros.

A *union* is the base's tokenizer, ids and all, with the other models' tokens behind it: ordinary tokens
in the vocabulary, added tokens as added tokens. The base's normalizer and splitting of text stay. BPE
merges of other models follow the base's, and only those that make tokens the base lacks. So a vocabulary
that extends the base's splits text exactly as it did; of two unrelated BPE vocabularies the union splits
text as neither does.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A model's tokens by string, and the rows of its tables, which may be more (padding) or fewer."""

    tokens: Mapping[str, int]
    rows: int


@dataclass(frozen=True, slots=True)
class TokenPlan:
    """Where every model finds its row for every id.

    Attributes:
        rows: of the aligned tables.
        sources: of each model, int64 of shape ``(rows,)``: its own row for that id, or -1.
        missing: ids that at least one model lacks, int64 of shape ``(missing,)``.
    """

    rows: int
    sources: Mapping[str, Tensor]
    missing: Tensor


def plan_rows(
    models: Mapping[str, Vocabulary], target: Mapping[str, int], *, rows: int, keeper: str | None
) -> TokenPlan:
    """Align ``models`` to the vocabulary ``target`` in tables of ``rows`` rows, or more if ids need it.

    ``keeper`` is the model whose tokenizer ``target`` is or extends: its padding rows are kept.
    """
    rows = max([rows, *(i + 1 for i in target.values())])
    taken = torch.zeros(rows, dtype=torch.bool)
    taken[torch.tensor(list(target.values()), dtype=torch.int64)] = True
    sources = {}
    for name, model in models.items():
        pairs = [
            (i, model.tokens[token])
            for token, i in target.items()
            if token in model.tokens and model.tokens[token] < model.rows
        ]
        source = torch.full((rows,), -1, dtype=torch.int64)
        if pairs:
            ids, own = torch.tensor(pairs, dtype=torch.int64).T
            source[ids] = own
        if keeper is not None and model.tokens == models[keeper].tokens:
            places = torch.arange(rows)
            padding = ~taken & (places < model.rows)
            source[padding] = places[padding]
        sources[name] = source
    lacking = torch.stack([source < 0 for source in sources.values()]).any(dim=0)
    return TokenPlan(rows, sources, lacking.nonzero()[:, 0])


def fill_rows(plan: TokenPlan, tables: Mapping[str, Tensor], base: str) -> Tensor:
    """The rows for ``plan.missing``: float32 of shape ``(missing, ...)``."""
    first = next(iter(tables.values()))
    fill = torch.zeros((len(plan.missing), *first.shape[1:]), dtype=torch.float32)
    count = torch.zeros(len(plan.missing), dtype=torch.int64)
    in_base = plan.sources[base][plan.missing] >= 0
    for name, table in tables.items():
        own = plan.sources[name][plan.missing]
        # Where the base has the token it is the only giver; else everyone who has it is one.
        gives = own >= 0 if name == base else (own >= 0) & ~in_base
        fill[gives] += table[own[gives]].float()
        count[gives] += 1
    return fill / count.clamp(min=1).view(-1, *([1] * (fill.dim() - 1)))


def aligned_table(plan: TokenPlan, table: Tensor, name: str, fill: Tensor) -> Tensor:
    """``name``'s table, of shape ``(plan.rows, ...)`` and of its own dtype: its own rows, else ``fill``."""
    source = plan.sources[name]
    out = table[source.clamp(min=0)]
    lacks = source[plan.missing] < 0
    out[plan.missing[lacks]] = fill[lacks].to(table.dtype)
    return out


def tokens_of(state: Mapping[str, Any]) -> dict[str, int]:
    """Every token's id, added tokens included, of what a ``tokenizer.json`` holds."""
    vocabulary = state["model"]["vocab"]
    if isinstance(vocabulary, list):
        tokens = {entry[0]: i for i, entry in enumerate(vocabulary)}
    else:
        tokens = dict(vocabulary)
    return tokens | {t["content"]: t["id"] for t in state.get("added_tokens", ())}


def union_state(base: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The ``tokenizer.json`` of the union: ``base`` and behind it what ``others`` have more, in order.

    Raises:
        ValueError: a Unigram base with unused ids, where nothing can be put behind it.
    """
    tokens = tokens_of(base)
    following = max(tokens.values(), default=-1) + 1
    added = list(base.get("added_tokens", ()))
    merges = [_parts(merge) for merge in base["model"].get("merges") or ()]
    scores: dict[str, float] = {}
    for other in others:
        specials = {t["content"]: t for t in other.get("added_tokens", ())}
        theirs = tokens_of(other)
        fresh = sorted(theirs.keys() - tokens.keys(), key=lambda t: (theirs[t], t))
        for token in fresh:
            tokens[token] = following
            if token in specials:
                added.append({**specials[token], "id": following})
            following += 1
        scores |= _scores(other)
        merges += _new_merges(other["model"], tokens, set(fresh))
    model = dict(base["model"])
    # Added tokens stand in the vocabulary too: the library would number the others by itself.
    if isinstance(model["vocab"], list):
        model["vocab"] = _scored(model["vocab"], tokens, scores)
    else:
        model["vocab"] = tokens
    if "merges" in model:
        model["merges"] = merges
    return {**base, "model": model, "added_tokens": added}


def _new_merges(
    model: Mapping[str, Any], tokens: Mapping[str, int], fresh: set[str]
) -> list[list[str]]:
    prefix = model.get("continuing_subword_prefix") or ""
    pairs = [_parts(merge) for merge in model.get("merges") or ()]
    return [
        [left, right]
        for left, right in pairs
        if left + right.removeprefix(prefix) in fresh and left in tokens and right in tokens
    ]


def _parts(merge: str | Sequence[str]) -> list[str]:
    """Both parts of a BPE merge; older files write "a b" for ["a", "b"]."""
    return merge.split(" ") if isinstance(merge, str) else list(merge)


def _scores(state: Mapping[str, Any]) -> dict[str, float]:
    vocabulary = state["model"]["vocab"]
    return {t: float(s) for t, s in vocabulary} if isinstance(vocabulary, list) else {}


def _scored(
    own: Sequence[tuple[str, float]], tokens: Mapping[str, int], scores: Mapping[str, float]
) -> list[tuple[str, float]]:
    """A Unigram vocabulary is a list, so ids are places in it."""
    mine = dict(own)
    least = min(mine.values(), default=0.0)
    ordered = sorted(tokens, key=tokens.__getitem__)
    if [tokens[t] for t in ordered] != list(range(len(ordered))):
        raise ValueError("a Unigram vocabulary with unused ids can't be extended")
    return [(t, mine.get(t, scores.get(t, least))) for t in ordered]
