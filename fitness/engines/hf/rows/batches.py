"""Rows of tokens in padded batches, which depend on the rows alone: never on timing or hosts."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitness.engines.hf.rows.prefixes import ScoredRow, Tree

# Logits of one batch at the kept positions: 2**28 of them are 1 GiB in float32.
MAX_LOGITS = 2**28
# Tokens of one tree that branches. Who sees whom in a batch of trees takes no more than in one such.
MAX_TREE = 2**13
# What one more pass costs, as so many tokens: rows of unlike length share a batch where padding costs less.
_PASS = 256


@dataclass(frozen=True, slots=True)
class Branching:
    """How the tokens of packed trees see each other; each of shape (rows, length).

    Attributes:
        positions: of each token in its own sequence.
        nodes: its number in its tree.
        ends: see `Tree.ends`. Padding sees itself only.
    """

    positions: Tensor
    nodes: Tensor
    ends: Tensor

    def repeated(self, times: int) -> "Branching":
        """The same trees so many times, one set of them after the other."""
        every = (self.positions, self.nodes, self.ends)
        return Branching(*(each.repeat(times, 1) for each in every))

    def mask(self) -> Tensor:
        """Whether a token (third axis) sees another (fourth), shape (rows, 1, length, length)."""
        node, seen = self.nodes[:, None, :, None], self.nodes[:, None, None, :]
        return (seen <= node) & (node < self.ends[:, None, None, :])


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """Trees ready for the model, right-padded (a causal model never looks to the right).

    A *place* is a position after which a token is scored, or several are, each another row's.

    Attributes:
        ids: shape (rows, length).
        reads: how many of the rows to score read this token, 0 for padding, shape (rows, length).
        branching: None where every row is an ordinary one.
        keep: positions of ``ids`` whose logits are wanted, shape (kept,); None for all.
        pick: the places among (rows · kept) positions, shape (places,); None for all.
        place: of each scored token, its place, shape (scored,); None where each has its own, in order.
        targets: the scored tokens, shape (scored,), row by row.
    """

    ids: Tensor
    reads: Tensor
    branching: Branching | None
    keep: Tensor | None
    pick: Tensor | None
    place: Tensor | None
    targets: Tensor

    def inputs(self) -> dict[str, Tensor]:
        """What a model of transformers takes."""
        if self.branching is None:
            return {"input_ids": self.ids}
        return {
            "input_ids": self.ids,
            "position_ids": self.branching.positions,
            "attention_mask": self.branching.mask(),
        }

    def repeated(self, times: int) -> "ScoredBatch":
        """The same rows so many times, one set of them after the other."""

        def shifted(numbers: Tensor | None, size: int) -> Tensor | None:
            if numbers is None:
                return None
            starts = size * torch.arange(times, device=numbers.device)
            return (starts[:, None] + numbers).flatten()

        positions = len(self.ids) * (self.ids.shape[1] if self.keep is None else len(self.keep))
        branching = self.branching
        return ScoredBatch(
            self.ids.repeat(times, 1),
            self.reads.repeat(times, 1),
            None if branching is None else branching.repeated(times),
            self.keep,
            shifted(self.pick, positions),
            shifted(self.place, positions if self.pick is None else len(self.pick)),
            self.targets.repeat(times),
        )


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
    trees: Sequence[Tree], *, batch_tokens: int, vocabulary: int, pad: int, device: str
) -> tuple[list[ScoredRow], list[ScoredBatch]]:
    """(the rows in the order of the batches, the batches).

    Trees are sorted by length (stable), those that branch after the others, and a batch holds as many as
    fit in ``batch_tokens`` padded tokens, in MAX_LOGITS and in the mask of MAX_TREE, but none that are so much shorter
    that padding costs more than another pass; one tree always fits.
    """
    ordered = sorted(trees, key=lambda tree: (tree.branches, tree.nodes))
    plain = sum(not tree.branches for tree in trees)
    sizes = [tree.nodes for tree in ordered]
    begins = _least_padding(sizes[:plain], batch_tokens)
    begins |= {plain + i for i in _least_padding(sizes[plain:], batch_tokens)}
    runs: list[list[Tree]] = []
    kept: set[int] = set()
    for number, tree in enumerate(ordered):
        wanted = kept.union(_scored_positions(tree))
        size = len(runs[-1]) + 1 if runs else 1
        if (
            number not in begins
            and size * len(wanted) * vocabulary <= MAX_LOGITS
            and size * tree.nodes**2 * tree.branches <= MAX_TREE**2
        ):
            runs[-1].append(tree)
            kept = wanted
        else:
            runs.append([tree])
            kept = set(_scored_positions(tree))
    rows = [row for tree in ordered for row in tree.rows]
    return rows, [_scored_batch(run, pad, device) for run in runs]


def _least_padding(sizes: Sequence[int], batch_tokens: int) -> set[int]:
    """Where batches begin, for the fewest padded tokens; ``sizes`` are sorted."""
    best = np.zeros(len(sizes) + 1, dtype=np.int64)
    starts = []
    for last, size in enumerate(sizes):
        first = max(0, last + 1 - max(1, batch_tokens // size))
        padded = size * np.arange(last + 1 - first, 0, -1)
        costs = best[first : last + 1] + padded + _PASS
        starts.append(first + int(np.argmin(costs)))
        best[last + 1] = costs.min()
    begins = set()
    end = len(sizes)
    while end:
        end = starts[end - 1]
        begins.add(end)
    return begins


def _layout(tree: Tree) -> NDArray[np.int64]:
    """Where each node stands in its row: places first in a tree that branches, to be kept together."""
    if not tree.branches:
        return np.arange(tree.nodes)
    other = np.ones(tree.nodes, dtype=bool)
    other[np.concatenate(tree.places)] = False
    at = np.empty(tree.nodes, dtype=np.int64)
    at[np.argsort(other, kind="stable")] = np.arange(tree.nodes)
    return at


def _scored_positions(tree: Tree) -> set[int]:
    return set(_layout(tree)[np.concatenate(tree.places)].tolist())


def _scored_batch(trees: Sequence[Tree], pad: int, device: str) -> ScoredBatch:
    width = trees[-1].nodes
    size = (len(trees), width)
    ids, reads, positions = np.full(size, pad), np.zeros(size, np.int64), np.zeros(size, np.int64)
    nodes = np.tile(np.arange(width), (len(trees), 1))
    ends = nodes + 1
    found = []
    for row, tree in enumerate(trees):
        at = _layout(tree)
        ids[row, at], reads[row, at], positions[row, at] = tree.ids, tree.reads, tree.depths
        nodes[row, at], ends[row, at] = np.arange(tree.nodes), tree.ends
        found += [row * width + at[places] for places in tree.places]
    scored = np.concatenate(found)
    kept, column = np.unique(scored % width, return_inverse=True)
    pick, place = np.unique(scored // width * len(kept) + column, return_inverse=True)
    own = np.array_equal(place, np.arange(len(pick)))

    def tensor(values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(device)

    branching = Branching(tensor(positions), tensor(nodes), tensor(ends))
    return ScoredBatch(
        tensor(ids),
        tensor(reads),
        branching if trees[-1].branches else None,
        None if len(kept) == width else tensor(kept),
        None if len(pick) == len(trees) * len(kept) else tensor(pick),
        None if own else tensor(place),
        torch.tensor([t for tree in trees for row in tree.rows for t in row.ids[-row.count :]]).to(
            device
        ),
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
