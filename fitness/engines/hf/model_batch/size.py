"""How many individuals to run in one pass: measured, among those whose bits are proved to be the same.

Timing may decide because nothing else depends on it: a count is a candidate only after a pass of so many
gave each individual the very bits that it gets alone, on the requests and the device in question.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter
from typing import Final

import torch
from torch import Tensor

COUNTS: Final = (2, 4, 8, 16)
# A pass of several must be so much faster, for each of them, to be worth it.
MARGIN: Final = 0.9
_ROUNDS: Final = 3
_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class ModelBatchSize:
    """``count`` individuals a pass, and ``proved``: the counts that give everyone's own bits, 1 too."""

    count: int = 1
    proved: tuple[int, ...] = (1,)

    def chunks(self, individuals: int) -> Iterator[range]:
        """Places of ``individuals`` in passes of ``count`` or, for what is left, of smaller proved ones."""
        at = 0
        while at < individuals:
            size = max(p for p in self.proved if p <= min(self.count, individuals - at))
            yield range(at, at + size)
            at += size


def measure_size(
    alone: Callable[[int], Tensor],
    group: Callable[[int], Tensor],
    counts: Sequence[int],
    clock: Callable[[], float] = perf_counter,
) -> ModelBatchSize:
    """The fastest of ``counts`` (ascending), by the median of alternating passes; 1 unless one is faster
    by a tenth. It takes about a second at most: what is slow needs no company.

    Args:
        alone: what individual i gives by itself, floating-point, shape (scored,).
        group: what individuals 0 to n - 1 give in one pass of n, shape (n, scored).
    """
    started = clock()
    single = _timed(partial(alone, 0), clock)
    best, proved = (single * MARGIN, 1), [1]
    wanted: list[Tensor] = []
    for count in counts:
        # Each alone once, a first pass and the rounds, at the pace of one alone.
        if clock() - started + (2 + _ROUNDS) * count * single > _SECONDS:
            break
        wanted += [alone(i) for i in range(len(wanted), count)]
        if not _equal(group(count), wanted):
            break
        proved.append(count)
        times = [
            (_timed(partial(alone, 0), clock), _timed(partial(group, count), clock) / count)
            for _ in range(_ROUNDS)
        ]
        single = median(one for one, _ in times)
        several = median(each for _, each in times)
        if several < min(best[0], single * MARGIN):
            best = (several, count)
        elif several > best[0] / MARGIN:
            break
    return ModelBatchSize(best[1], tuple(proved))


def _timed(work: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    work()
    return clock() - started


def _equal(found: Tensor, wanted: Sequence[Tensor]) -> bool:
    # NaN proves nothing: where all is NaN, nobody could be told from another.
    finite = bool(torch.isfinite(found).all())
    return finite and all(torch.equal(f, w) for f, w in zip(found, wanted, strict=True))
