"""Static merges: one merge method over a grid of parameters, as one would tune it without evolution."""

import itertools

import numpy as np

from evo.algorithms import Candidate, Start
from evo.lineage.read.best_so_far import STATIC
from operators.merge import MERGES, merge

# The number of scales by method; with the densities, 40 to 48 merges each, as in README's table.
_SCALES = {"task_arithmetic": 40, "ties": 8, "dare_ties": 8}
_DENSITIES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


def static_grid(method: str, start: Start, size: int | None = None) -> list[Candidate]:
    """Return merges of all founders by ``method``, each founder with weight 1.

    Scales are evenly spaced over the search range that MERGES gives, without its lower end (a scale of 0
    gives the base). Methods with a density get every combination of scale and density.

    Args:
        method: a name in MERGES whose method has a scale, ``lambda``.
        start: founders, base and seed.
        size: the greatest number of merges; by default that of the method.

    Raises:
        ValueError: the method has no scale to tune.
    """
    entry = MERGES[method]
    scale = entry.parameter("lambda")
    if scale is None or scale.search is None:
        raise ValueError(f"{method} has no scale to tune")
    low, high = scale.search
    densities: tuple[float | None, ...] = _DENSITIES if entry.parameter("density") else (None,)
    count = _SCALES[method] if size is None else max(1, size // len(densities))
    scales = np.linspace(low, high, count + 1)[1:]
    parents = tuple(f.id for f in start.founders)
    candidates = []
    for value, density in itertools.product(scales, densities):
        params = {"lambda": float(value)} | ({} if density is None else {"density": density})
        recipe = merge(method, start.founders, base=start.base, params=params, seed=start.seed)
        candidates.append(Candidate(recipe, f"{STATIC}{method}", parents, start.seed))
    return candidates
