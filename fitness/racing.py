"""Racing statistics: the order of the examples, and which candidates are beaten with confidence.

The input is per-example values; nothing here knows models or tasks.
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
    """Return the positions 0 to ``count`` − 1 shuffled: a file may be sorted, and its first examples alike.

    The same on every machine and in every run: sorted by the SHA-256 of the position's digits.
    """
    return tuple(sorted(range(count), key=lambda i: sha256(str(i).encode()).digest()))


def rung_ends(count: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Return how many of ``count`` examples are met after each rung; ``count`` after the last.

    ``shares`` are ascending, each above 0 and below 1; rounded up, so that the first rung has an example.
    """
    return (*(ceil(share * count) for share in shares), count)


def evidence(differences: Floats, *, total: int, reach: Floats, margin: Floats) -> Floats:
    """Return the evidence (e-value) that the mean difference over all examples is above ``margin``.

    It is the wealth of a bettor who starts with 1 and bets on that hypothesis, at odds that are fair or
    unfavourable if the mean of all ``total`` differences is at most ``margin``. In that case it exceeds 1/δ
    with a probability of at most δ (Ville's inequality), however often it is computed. So neither a
    correction for the number of rungs is needed nor an estimate of the variance, which would be too small
    for few examples or values of 0 and 1. Examples are drawn without replacement: when nearly all are met,
    the rest cannot change the mean much, and the evidence grows without bound.

    Args:
        differences: shape (..., met), in the order met; values of one model minus those of another.
        total: the number of examples, at least ``met``.
        reach: shape (...), the greatest absolute difference that an example can have.
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
        # If the mean over all were the margin, this would be the mean of the remaining differences.
        expected = (total * margin - seen) / (total - i)
        room = reach + expected
        gain = differences[..., i] - expected
        possible = room > 0.0
        odds = np.where(possible, gain / np.where(possible, room, 1.0), 0.0)
        # Below the least possible mean of the rest: the margin is exceeded in any case.
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
    """Return which candidates cannot be among the best ``keeps`` of candidates and rivals.

    A candidate is beaten if at least ``keeps`` others are better, each of them with ``confidence``.

    Args:
        values: shape (candidates, met), of the examples met, in the order met.
        rivals: shape (rivals, met), on the same examples.
        total: the number of examples.
        keeps: at least 1.
        confidence: of each comparison, over all its repetitions.
        reach: the greatest difference between two values; the range of ``values`` and ``rivals`` if that is wider.
        costs: shape (candidates,), subtracted from each candidate's mean.
        rival_costs: shape (rivals,).

    Returns:
        shape (candidates,).
    """
    every = np.concatenate([values, rivals])
    all_costs = np.concatenate([costs, rival_costs])
    spread = np.ptp(every)
    if spread == 0.0:
        return np.zeros(len(values), np.bool_)
    differences = every[None, :, :] - values[:, None, :]
    margin = all_costs[None, :] - costs[:, None]
    widest = np.full(margin.shape, max(spread, reach))
    found = evidence(differences, total=total, reach=widest, margin=margin)
    is_beaten: NDArray[np.bool_] = (found * (1.0 - confidence) >= 1.0).sum(axis=1) >= keeps
    return is_beaten
