"""Parents and children as arrays: an id is a 64-bit key, an individual is a row number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from evo.errors import EvoError

ID_LENGTH = 64  # hex digits of a SHA-256
KEY_DIGITS = 16

Keys: TypeAlias = npt.NDArray[np.uint64]
Rows: TypeAlias = npt.NDArray[np.int64]


def keys_of(ids: pa.ChunkedArray) -> Keys:
    """The first 16 hex digits of each id, as a number.

    Among ten million individuals the chance that two share these digits is 1 in 400,000;
    :meth:`KeyIndex.of` raises an error then.

    Raises:
        EvoError: an id does not have 64 hex digits.
    """
    parts = [_keys(chunk) for chunk in ids.chunks if len(chunk)]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _keys(ids: pa.StringArray) -> Keys:
    _, offsets, data = ids.buffers()
    starts = np.frombuffer(offsets, np.int32)[ids.offset : ids.offset + len(ids) + 1]
    if ids.null_count or (np.diff(starts) != ID_LENGTH).any():
        raise EvoError(
            "the lineage holds an id that does not have 64 hex digits; its files were changed after they were written"
        )
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
class KeyIndex:
    """Row numbers by key: row i has the i-th of ``keys``."""

    keys: pd.Index

    @classmethod
    def of(cls, keys: Keys) -> "KeyIndex":
        """The index of these keys.

        Raises:
            EvoError: two keys are equal.
        """
        index = pd.Index(keys)
        if not index.is_unique:
            raise EvoError(
                f"two individuals of the lineage have ids that begin with the same {KEY_DIGITS} digits"
            )
        return cls(index)

    def beginning(self, prefix: str) -> Rows:
        """The rows whose keys begin with these hex digits; digits after the 16th are ignored."""
        digits = prefix[:KEY_DIGITS]
        low, high = int(digits.ljust(KEY_DIGITS, "0"), 16), int(digits.ljust(KEY_DIGITS, "f"), 16)
        keys = self.keys.to_numpy()
        return np.flatnonzero((keys >= np.uint64(low)) & (keys <= np.uint64(high)))

    def find(self, keys: Keys) -> Rows:
        """The row of each key; -1 where there is none."""
        return self.keys.get_indexer(pd.Index(keys))


@dataclass(frozen=True, slots=True)
class ParentGraph:
    """Edges between rows: those of row i are ``targets[starts[i]:starts[i + 1]]``."""

    starts: Rows
    targets: Rows

    def __len__(self) -> int:
        return len(self.starts) - 1

    def reversed(self) -> "ParentGraph":
        """The same edges, reversed."""
        sources = np.repeat(np.arange(len(self)), np.diff(self.starts))
        order = np.argsort(self.targets, kind="stable")
        counts = np.bincount(self.targets, minlength=len(self))
        return ParentGraph(_starts(counts), sources[order])

    def distances(self, start: int) -> npt.NDArray[np.int32]:
        """The least number of steps from row ``start`` to each row; -1 for unreachable rows."""
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
            place[reached] = count  # of equal rows the last one is kept
            frontier = reached[place[reached] == count]
        return distance

    def edges(self, rows: Rows) -> tuple[Rows, Rows]:
        """All edges from these rows: the source of each (a position in ``rows``) and its target."""
        counts = self.starts[rows + 1] - self.starts[rows]
        sources = np.repeat(np.arange(len(rows)), counts)
        first = np.cumsum(counts) - counts
        within = np.arange(len(sources)) - first[sources]
        return sources, self.targets[self.starts[rows][sources] + within]


@dataclass(frozen=True, slots=True)
class ParentKeys:
    """Individuals and their parents as keys; ``counts`` is the number of parents of each individual."""

    keys: Keys
    counts: Rows
    parents: Keys

    @classmethod
    def of(cls, rows: pa.Table) -> "ParentKeys":
        """From the columns id and parents."""
        parents = rows.column("parents").combine_chunks()
        flat = pa.chunked_array([parents.flatten()])
        counts = np.diff(np.asarray(parents.offsets)).astype(np.int64)
        return cls(keys_of(rows.column("id")), counts, keys_of(flat))

    @classmethod
    def joined(cls, links: Sequence["ParentKeys"]) -> "ParentKeys":
        if not links:
            return cls(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.uint64))
        each = ("keys", "counts", "parents")
        return cls(*(np.concatenate([getattr(one, name) for one in links]) for name in each))

    def graph(self, index: KeyIndex) -> ParentGraph:
        """Edges from each row to its parents' rows, without parents that have no row."""
        found, counts = index.find(self.parents), self.counts
        known = found >= 0
        if not known.all():
            whose = np.repeat(np.arange(len(counts)), counts)[known]
            counts = np.bincount(whose, minlength=len(counts))
        return ParentGraph(_starts(counts), found[known])


def _starts(counts: npt.NDArray[np.integer]) -> Rows:
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts
