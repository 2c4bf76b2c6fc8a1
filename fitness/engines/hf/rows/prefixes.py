"""Rows that begin alike, as trees of tokens: a shared beginning is read once.

A causal model's output at a token depends on the tokens before it alone. So a row whose tokens are the
beginning of another's needs no reading of its own, in any causal model: both together are a *chain*. Rows
that begin alike and then part make a *branching* tree: one pass reads it as one row, if each token is told
its position (its depth in the tree) and sees its ancestors only (an attention mask), as in SpecInfer's tree
attention (arXiv 2305.09781, section 4.2). That is for models that let an attention mask say who sees whom.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# Trees branch only where that takes so much work off: masks have a price, too.
_WORTH = 0.8


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
class Tree:
    """What is read for some rows: tokens in depth-first order.

    Attributes:
        rows: in the order of the requests.
        ids: the token of each node, shape (nodes,).
        depths: how many are before it, shape (nodes,).
        ends: node a is b or before it iff ``a <= b < ends[a]``, shape (nodes,).
        reads: by how many rows it is read, shape (nodes,).
        places: of each row, the nodes whose successors are scored, shape (count,).
    """

    rows: tuple[ScoredRow, ...]
    ids: NDArray[np.int64]
    depths: NDArray[np.int64]
    ends: NDArray[np.int64]
    reads: NDArray[np.int64]
    places: tuple[NDArray[np.int64], ...]

    @property
    def nodes(self) -> int:
        """Tokens that the model reads."""
        return len(self.ids)

    @property
    def branches(self) -> bool:
        """Whether tokens must be told what they may see; else it is an ordinary row."""
        return self.nodes > int(self.depths[-1]) + 1


def chains(rows: Sequence[ScoredRow]) -> list[Tree]:
    """``rows`` without those that are read with another: in the order of their first requests."""
    leaves, shared = _leaves(rows)
    return _trees(rows, leaves, shared, range(len(leaves)))


def branching(rows: Sequence[ScoredRow], *, width: float, most: int) -> list[Tree]:
    """``rows`` as trees of up to ``most`` tokens (a row alone may have more), or as chains.

    A tree of n tokens takes work n + n²/``width``, the first for the matrices of the model and the second
    for its attention; rows are joined so that all together take the least. They stay chains if that is no
    fifth less. The result depends on the rows and these numbers only.
    """
    leaves, shared = _leaves(rows)
    starts, work = _cuts(rows, leaves, shared, width, most)
    alone = sum(_work(rows[leaf[-1]].length, width) for leaf in leaves)
    if work > _WORTH * alone:
        starts = range(len(leaves))
    return _trees(rows, leaves, shared, starts)


def _work(nodes: float, width: float) -> float:
    return nodes + nodes * nodes / width


def _leaves(rows: Sequence[ScoredRow]) -> tuple[list[list[int]], list[int]]:
    """(rows by number: those of a chain together, the longest last; chains in the order of their tokens,
    how many tokens each chain has in common with the one before).
    """
    read = [row.ids[:-1] for row in rows]
    order = sorted(range(len(rows)), key=lambda i: read[i])
    common = [_common(read[a], read[b]) for a, b in pairwise(order)]
    leaves: list[list[int]] = []
    shared: list[int] = []
    begins = True
    # What begins another stands before it, and the next in this order then begins with it, too.
    for at, row in enumerate(order):
        if begins:
            leaves.append([])
            shared.append(common[at - 1] if at else 0)
        leaves[-1].append(row)
        begins = at == len(common) or common[at] < len(read[row])
    return leaves, shared


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _cuts(
    rows: Sequence[ScoredRow],
    leaves: Sequence[Sequence[int]],
    shared: Sequence[int],
    width: float,
    most: int,
) -> tuple[Sequence[int], float]:
    """(the leaves that begin a tree, the work of all trees): the least, by dynamic programming."""
    lengths = np.array([rows[leaf[-1]].length for leaf in leaves], dtype=np.float64)
    total = np.cumsum(lengths - shared)
    best = np.zeros(len(leaves) + 1)
    begins = np.zeros(len(leaves), dtype=np.int64)
    first = 0
    for last in range(len(leaves)):
        if shared[last] == 0:
            first = last
        # Nodes of the tree of leaves i to last, for every i from first on: fewer for later ones.
        nodes = total[last] - total[first : last + 1] + lengths[first : last + 1]
        fits = int(np.argmax((nodes <= most) | (nodes == lengths[last])))
        first += fits
        works = best[first : last + 1] + _work(nodes[fits:], width)
        chosen = int(np.argmin(works))
        best[last + 1] = works[chosen]
        begins[last] = first + chosen
    starts = []
    end = len(leaves)
    while end:
        end = int(begins[end - 1])
        starts.append(end)
    return starts[::-1], float(best[-1])


def _trees(
    rows: Sequence[ScoredRow],
    leaves: Sequence[Sequence[int]],
    shared: Sequence[int],
    starts: Sequence[int],
) -> list[Tree]:
    made = []
    for start, end in pairwise([*starts, len(leaves)]):
        numbers = sorted(row for leaf in leaves[start:end] for row in leaf)
        tree = _tree(rows, numbers, leaves[start:end], [0, *shared[start + 1 : end]])
        made.append((numbers[0], tree))
    return [tree for _, tree in sorted(made, key=lambda found: found[0])]


def _tree(
    rows: Sequence[ScoredRow],
    numbers: Sequence[int],
    leaves: Sequence[Sequence[int]],
    shared: Sequence[int],
) -> Tree:
    nodes = sum(rows[leaf[-1]].length - n for leaf, n in zip(leaves, shared, strict=True))
    ids, depths, reads = (np.zeros(nodes, dtype=np.int64) for _ in range(3))
    ends = np.full(nodes, nodes)
    path = np.zeros(0, dtype=np.int64)
    places: dict[int, NDArray[np.int64]] = {}
    done = 0
    for leaf, known in zip(leaves, shared, strict=True):
        row = rows[leaf[-1]]
        fresh = np.arange(done, done + row.length - known)
        ids[fresh] = row.ids[known:-1]
        depths[fresh] = np.arange(known, row.length)
        ends[path[known:]] = done
        path = np.concatenate([path[:known], fresh])
        done += len(fresh)
        for number in leaf:
            length, count = rows[number].length, rows[number].count
            reads[path[:length]] += 1
            places[number] = path[length - count : length]
    return Tree(
        tuple(rows[n] for n in numbers), ids, depths, ends, reads, tuple(places[n] for n in numbers)
    )
