"""Rows of tokens in padded batches, which depend on the rows alone: never on timing or hosts."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor

# Logits of one batch at the kept positions: 2**28 of them are 1 GiB in float32.
MAX_LOGITS = 2**28


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A sequence whose last ``count`` tokens are scored, each given all tokens before it."""

    request: int
    ids: list[int]
    count: int

    @property
    def length(self) -> int:
        """Tokens the model reads: all but the last, which is only predicted."""
        return len(self.ids) - 1


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """Rows ready for the model, right-padded (a causal model never looks to the right).

    Attributes:
        ids: shape (rows, length).
        keep: positions of ``ids`` whose logits are wanted, shape (kept,); None for all.
        pick: the scored ones among (rows · kept) positions, shape (scored,); None for all.
        targets: the token at each scored one, shape (scored,), row by row.
    """

    ids: Tensor
    keep: Tensor | None
    pick: Tensor | None
    targets: Tensor

    def repeated(self, times: int) -> "ScoredBatch":
        """The same rows so many times, one set of them after the other."""
        pick = self.pick
        if pick is not None:
            size = len(self.ids) * (self.ids.shape[1] if self.keep is None else len(self.keep))
            starts = size * torch.arange(times, device=pick.device)
            pick = (starts[:, None] + pick).flatten()
        return ScoredBatch(self.ids.repeat(times, 1), self.keep, pick, self.targets.repeat(times))


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt to continue by at most ``max_tokens`` tokens, or up to one of ``stop``."""

    request: int
    ids: list[int]
    max_tokens: int
    stop: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Prompts ready for generation, left-padded.

    Attributes:
        ids: shape (rows, length).
        mask: 1 where ``ids`` is no padding, shape (rows, length).
        temperature: of all rows; 0 is greedy.
        seed: of this batch's sampling.
    """

    rows: tuple[PromptRow, ...]
    ids: Tensor
    mask: Tensor
    temperature: float
    seed: int


def scored_batches(
    rows: Sequence[ScoredRow], *, batch_tokens: int, vocabulary: int, pad: int, device: str
) -> tuple[list[ScoredRow], list[ScoredBatch]]:
    """(the rows in the order of the batches, the batches).

    Rows are sorted by length (stable), and a batch holds as many as fit in ``batch_tokens`` padded
    tokens and in MAX_LOGITS; one row always fits.
    """
    ordered = sorted(rows, key=lambda row: row.length)
    runs: list[list[ScoredRow]] = []
    kept: set[int] = set()
    for row in ordered:
        wanted = kept.union(_scored_positions(row))
        size = len(runs[-1]) + 1 if runs else 1
        if (
            runs
            and size * row.length <= batch_tokens
            and size * len(wanted) * vocabulary <= MAX_LOGITS
        ):
            runs[-1].append(row)
            kept = wanted
        else:
            runs.append([row])
            kept = set(_scored_positions(row))
    return ordered, [_scored_batch(run, pad, device) for run in runs]


def _scored_positions(row: ScoredRow) -> range:
    return range(row.length - row.count, row.length)


def _scored_batch(rows: Sequence[ScoredRow], pad: int, device: str) -> ScoredBatch:
    width = rows[-1].length
    ids = torch.tensor([row.ids[:-1] + [pad] * (width - row.length) for row in rows])
    kept = sorted({p for row in rows for p in _scored_positions(row)})
    place = {p: i for i, p in enumerate(kept)}
    pick = [r * len(kept) + place[p] for r, row in enumerate(rows) for p in _scored_positions(row)]
    everything = len(pick) == len(rows) * len(kept)
    return ScoredBatch(
        ids.to(device),
        None if len(kept) == width else torch.tensor(kept, device=device),
        None if everything else torch.tensor(pick, device=device),
        torch.tensor([t for row in rows for t in row.ids[-row.count :]], device=device),
    )


def prompt_batches(
    rows: Sequence[tuple[PromptRow, float, int]], *, batch_tokens: int, pad: int, device: str
) -> list[PromptBatch]:
    """Batches of (row, temperature, seed): equal temperature and, where sampled, equal seed.

    Rows are sorted by length (stable); a batch holds as many as fit in ``batch_tokens``, the
    padded prompts and the tokens to come together; one row always fits.
    """
    groups: dict[tuple[float, int], list[PromptRow]] = {}
    for row, temperature, seed in rows:
        groups.setdefault((temperature, seed if temperature else 0), []).append(row)
    batches = []
    for (temperature, seed), group in groups.items():
        runs: list[list[PromptRow]] = []
        longest = 0
        for row in sorted(group, key=lambda row: len(row.ids)):
            longest = max(longest, row.max_tokens)
            if runs and (len(runs[-1]) + 1) * (len(row.ids) + longest) <= batch_tokens:
                runs[-1].append(row)
            else:
                runs.append([row])
                longest = row.max_tokens
        for number, run in enumerate(runs):
            batches.append(_prompt_batch(run, temperature, _mix(seed, number), pad, device))
    return batches


def _prompt_batch(
    rows: Sequence[PromptRow], temperature: float, seed: int, pad: int, device: str
) -> PromptBatch:
    width = len(rows[-1].ids)
    gaps = [width - len(row.ids) for row in rows]
    ids = torch.tensor([[pad] * g + row.ids for g, row in zip(gaps, rows, strict=True)])
    mask = torch.tensor([[0] * g + [1] * (width - g) for g in gaps])
    return PromptBatch(tuple(rows), ids.to(device), mask.to(device), temperature, seed)


def _mix(seed: int, number: int) -> int:
    """A seed for batch ``number``, so that batches of one seed do not draw the same numbers."""
    return int.from_bytes(sha256(f"{seed}:{number}".encode()).digest()[:7])
