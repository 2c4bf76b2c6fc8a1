"""GENOME's crossover: fit parents, merged in proportion to their fitness.

Source: arXiv 2503.01155, section 3.2.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from operators.merge import merge, method_named
from operators.recipe import Recipe, linear

AVERAGE = "average"
# What a method calls its inputs' shares, where it knows any.
_SHARES = ("weight", "beta", "priority")


def merits(fitness: Sequence[float]) -> NDArray[np.float64]:
    """Fitness as amounts that can be shared out: itself where no fitness is negative, 0 if it failed.

    Where some fitness is negative, all are measured from a little below the least (by the mean
    distance to it, over n), so that the least keeps something. Shape (individuals,).

    Raises:
        ValueError: no fitness is finite.
    """
    scores = np.asarray(fitness, dtype=np.float64)
    alive = np.isfinite(scores)
    if not alive.any():
        raise ValueError("no individual has a finite fitness: every evaluation failed")
    low = float(scores[alive].min())
    origin = min(0.0, low)
    if low < 0.0:
        origin -= float(np.mean(scores[alive] - low)) / int(alive.sum())
    return np.where(alive, scores - origin, 0.0)


def proportions(fitness: Sequence[float]) -> NDArray[np.float64]:
    """p_i = f_i / Σf of the :func:`merits`; shape (individuals,), sums to 1.

    Where all are 0 the finite ones share equally.
    """
    shares = merits(fitness)
    if shares.max() <= 0.0:
        shares = np.isfinite(fitness).astype(np.float64)
    if shares.max() > 1e300:  # the sum would overflow
        shares = shares / shares.max()
    total: float = shares.sum()
    return shares / total


def choose_parents(
    fitness: Sequence[float], rng: np.random.Generator, *, count: int = 2
) -> tuple[int, ...]:
    """Indices of ``count`` distinct individuals, drawn in proportion to fitness.

    Where fewer than ``count`` have a positive share, the rest are drawn evenly from the other living
    ones. Fewer than ``count`` living individuals: all of them.
    """
    return draw_without_replacement(proportions(fitness), np.isfinite(fitness), count, rng)


def draw_without_replacement(
    shares: NDArray[np.float64], alive: NDArray[np.bool_], count: int, rng: np.random.Generator
) -> tuple[int, ...]:
    """Up to ``count`` distinct indices drawn by ``shares``, then evenly among ``alive`` ones left."""
    chosen = list(
        rng.choice(len(shares), size=min(count, int((shares > 0).sum())), replace=False, p=shares)
    )
    rest = [i for i in np.flatnonzero(alive) if i not in chosen]
    missing = min(count - len(chosen), len(rest))
    if missing > 0:
        chosen += list(rng.choice(rest, size=missing, replace=False))
    return tuple(int(i) for i in chosen)


def crossover(
    parents: Sequence[Recipe],
    fitness: Sequence[float],
    *,
    method: str = AVERAGE,
    base: Recipe | None = None,
    seed: int = 0,
) -> Recipe:
    """The child (Σ f_i·θ_i) / Σf, or a merge of MERGES by name.

    A method with weights (or betas, or priorities) gets f_i / Σf as these; SLERP goes the second
    parent's share of the way; methods that know no shares merge the parents as equals. Methods that
    need a base take ``base``. Give the parents' :func:`merits` in their population where fitness may be
    negative: measured from each other, the worse of two would always have nothing to pass on.
    """
    shares = tuple(float(s) for s in proportions(fitness))
    if method == AVERAGE:
        return linear(zip(parents, shares, strict=True))
    if method == "slerp":
        return merge(method, parents, params={"t": shares[1]})
    entry = method_named(method)
    named = next((name for name in _SHARES if entry.parameter(name)), None)
    params = {} if named is None else {named: shares}
    return merge(method, parents, base=base, params=params, seed=seed)
