"""Who descends from whom, as numbers: ids are 64 bits, individuals are rows, a walk goes step by step."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from evo.errors import UserError

ID_LENGTH = 64  # hex digits of a SHA-256
KEY_DIGITS = 16

Keys: TypeAlias = npt.NDArray[np.uint64]
Rows: TypeAlias = npt.NDArray[np.int64]


def keys_of(ids: pa.ChunkedArray) -> Keys:
    """The first 16 hex digits of each id, as a number.

    Of ten million individuals the chance that any two are alike in these is 1 in 400,000; then
    :meth:`Graph.of` says so.

    Raises:
        UserError: these are no ids, of 64 hex digits each.
    """
    parts = [_keys(chunk) for chunk in ids.chunks if len(chunk)]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _keys(ids: pa.StringArray) -> Keys:
    _, offsets, data = ids.buffers()
    starts = np.frombuffer(offsets, np.int32)[ids.offset : ids.offset + len(ids) + 1]
    if ids.null_count or (np.diff(starts) != ID_LENGTH).any():
        raise UserError("an id in the lineage is not 64 hex digits, as the SHA-256 of a recipe is")
    # Eight digits at a time, the first one in the highest byte.
    words = np.frombuffer(data, ">u8", len(ids) * ID_LENGTH // 8, int(starts[0]))
    first = words.reshape(len(ids), ID_LENGTH // 8)[:, : KEY_DIGITS // 8].astype(np.uint64)
    halves = _packed(first)
    return (halves[:, 0] << np.uint64(32)) | halves[:, 1]


def _packed(digits: Keys) -> Keys:
    """Eight ASCII hex digits, one a byte, as the 32 bits that they stand for."""
    low, letter = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)
    bits = (digits & low) + np.uint64(9) * ((digits >> np.uint64(6)) & letter)
    for shift, mask in ((4, 0x00FF00FF00FF00FF), (8, 0x0000FFFF0000FFFF), (16, 0xFFFFFFFF)):
        bits = (bits | (bits >> np.uint64(shift))) & np.uint64(mask)
    return bits


@dataclass(frozen=True, slots=True)
class Index:
    """Rows by key: ``keys[rows]`` is sorted."""

    sorted_keys: Keys
    rows: Rows

    @classmethod
    def of(cls, keys: Keys) -> "Index":
        rows = np.argsort(keys, kind="stable")
        return cls(keys[rows], rows)

    def find(self, keys: Keys) -> Rows:
        """The row of each key; -1 where there is none."""
        if not len(self.rows):
            return np.full(len(keys), -1, np.int64)
        at = np.searchsorted(self.sorted_keys, keys)
        at[at == len(self.rows)] = 0
        return np.where(self.sorted_keys[at] == keys, self.rows[at], -1)


@dataclass(frozen=True, slots=True)
class Graph:
    """Edges between rows: those of row i are ``targets[starts[i]:starts[i + 1]]``."""

    starts: Rows
    targets: Rows

    def __len__(self) -> int:
        return len(self.starts) - 1

    def turned(self) -> "Graph":
        """The same edges the other way round."""
        sources = np.repeat(np.arange(len(self)), np.diff(self.starts))
        order = np.argsort(self.targets, kind="stable")
        counts = np.bincount(self.targets, minlength=len(self))
        return Graph(_starts(counts), sources[order])

    def distances(self, start: int) -> npt.NDArray[np.int32]:
        """The least number of steps from row ``start`` to each row; -1 where none leads there."""
        distance = np.full(len(self), -1, np.int32)
        place = np.empty(len(self), np.int64)
        distance[start] = 0
        frontier, steps = np.array([start]), 0
        while len(frontier):
            steps += 1
            _, reached = self.edges(frontier)
            reached = reached[distance[reached] < 0]
            distance[reached] = steps
            count = np.arange(len(reached))
            place[reached] = count  # the last of equals stays, and is the one that goes on
            frontier = reached[place[reached] == count]
        return distance

    def edges(self, rows: Rows) -> tuple[Rows, Rows]:
        """All edges from these rows: where each comes from (a position in ``rows``) and leads to."""
        counts = self.starts[rows + 1] - self.starts[rows]
        sources = np.repeat(np.arange(len(rows)), counts)
        first = np.cumsum(counts) - counts
        within = np.arange(len(sources)) - first[sources]
        return sources, self.targets[self.starts[rows][sources] + within]


def parents_graph(index: Index, parents: pa.ChunkedArray) -> Graph:
    """From each row to its parents; parents that have no row of their own are left out."""
    counts, keys = [], []
    for chunk in parents.chunks:
        counts.append(np.diff(np.asarray(chunk.offsets)))
        keys.append(keys_of(pa.chunked_array([chunk.flatten()])))
    number = np.concatenate(counts) if counts else np.empty(0, np.int64)
    found = index.find(np.concatenate(keys)) if keys else np.empty(0, np.int64)
    known = found >= 0
    if not known.all():
        whose = np.repeat(np.arange(len(number)), number)[known]
        number = np.bincount(whose, minlength=len(number))
    return Graph(_starts(number), found[known])


def _starts(counts: npt.NDArray[np.integer]) -> Rows:
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts
