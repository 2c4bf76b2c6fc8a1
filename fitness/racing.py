"""Racing's arithmetic: in which order examples are met, and how sure it is that one model is better.

Nothing here knows of models or tasks: what goes in are differences of per-example values.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from math import ceil
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

_STAKES: Final = (0.25, 0.5, 0.75)  # of what may be lost; the evidence is the mean over them


@lru_cache(maxsize=32)
def example_order(count: int) -> tuple[int, ...]:
    """Positions 0 to ``count`` − 1 shuffled: files may be sorted, and their first lines alike.

    The same on every machine and in every run: sorted by the SHA-256 of the position's digits.
    """
    return tuple(sorted(range(count), key=lambda i: sha256(str(i).encode()).digest()))


def rung_ends(count: int, shares: Sequence[float]) -> tuple[int, ...]:
    """How many of ``count`` examples have been met after each rung; ``count`` after the last.

    ``shares`` are ascending, each above 0 and below 1; rounded up, so that no rung begins with none.
    """
    return (*(ceil(share * count) for share in shares), count)


def evidence(differences: Floats, *, total: int, reach: Floats, margin: Floats) -> Floats:
    """How much the examples met so far speak for a mean difference above ``margin`` over all examples.

    It is the wealth of somebody who began with 1 and bet on that, at odds that are fair or bad if the
    mean of all ``total`` differences is at most ``margin``. So in such a case it exceeds 1/δ with a
    probability of δ at most (Ville's inequality), however often one looks: no correction for the number
    of rungs, and no estimate of a variance, which few examples, or values of 0 and 1, would make too
    small. Examples are drawn without replacement: when nearly all are met the rest can't make up for
    much, and evidence grows without bound.

    Args:
        differences: shape (..., met), in the order met; values of the one less those of the other.
        total: how many examples there are, at least ``met``.
        reach: shape (...), the greatest difference, of either sign, that an example can have.
        margin: shape (...).

    Source: Waudby-Smith & Ramdas 2020, "Confidence sequences for sampling without replacement",
        arXiv 2006.04347; betting: the same authors, arXiv 2010.09686.
    """
    met = differences.shape[-1]
    if met > total:
        raise ValueError(f"{met} differences of {total} examples")
    shape = differences.shape[:-1]
    stakes = np.array(_STAKES).reshape(-1, *([1] * len(shape)))
    wealth = np.ones((len(_STAKES), *shape))
    seen = np.zeros(shape)
    for i in range(met):
        # Were the mean over all at the margin, this would be the mean of those still to come.
        expected = (total * margin - seen) / (total - i)
        room = reach + expected
        gain = differences[..., i] - expected
        possible = room > 0.0
        odds = np.where(possible, gain / np.where(possible, room, 1.0), 0.0)
        # Below the least possible mean of the rest: the margin is exceeded whatever comes.
        odds = np.where(~possible & (gain > 0.0), np.inf, odds)
        wealth = wealth * np.maximum(1.0 + stakes * odds, 0.0)
        seen = seen + differences[..., i]
    mean: Floats = wealth.mean(axis=0)
    return mean


def beaten(
    values: Floats,
    rivals: Floats,
    *,
    total: int,
    keeps: int,
    confidence: float,
    reach: float,
    costs: Floats,
    rival_costs: Floats,
) -> NDArray[np.bool_]:
    """Which candidates can't be among the best ``keeps`` of candidates and rivals.

    One that at least ``keeps`` others are better than, each of them with ``confidence``.

    Args:
        values: shape (candidates, met), of the examples met, in the order met.
        rivals: shape (rivals, met), of others on the same examples.
        total: how many examples there are.
        keeps: at least 1.
        confidence: of each comparison, over all times that it is made.
        reach: how far apart two values can be; where those met are further, that is taken for it.
        costs: shape (candidates,), what is subtracted from each one's mean.
        rival_costs: shape (rivals,).

    Returns:
        shape (candidates,).
    """
    everybody = np.concatenate([values, rivals])
    all_costs = np.concatenate([costs, rival_costs])
    spread = np.ptp(everybody)
    if spread == 0.0:
        return np.zeros(len(values), np.bool_)
    differences = everybody[None, :, :] - values[:, None, :]
    margin = all_costs[None, :] - costs[:, None]
    widest = np.full(margin.shape, max(spread, reach))
    found = evidence(differences, total=total, reach=widest, margin=margin)
    surely: NDArray[np.bool_] = (found * (1.0 - confidence) >= 1.0).sum(axis=1) >= keeps
    return surely
