"""What a winner is compared with: static merges whose few numbers are tuned on dev."""

import itertools
from collections.abc import Sequence

import numpy as np

from evo.algorithms import Candidate
from evo.algorithms.protocol import Start
from operators.merge import MERGES, merge
from operators.recipe import Recipe, linear

# (scales, densities) of the grids: 40, 48 and 48 merges, as many as README's table used.
_SCALES = {"task_arithmetic": 40, "ties": 8, "dare_ties": 8}
_DENSITIES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


def uniform_average(founders: Sequence[Recipe]) -> Recipe:
    """Σ θᵢ / n."""
    return linear([(founder, 1.0 / len(founders)) for founder in founders])


def static_grid(method: str, start: Start) -> list[Candidate]:
    """The merges of all founders by ``method``, over a grid of scales (and densities).

    Every founder has weight 1; scales are evenly spaced over the parameter's search range in MERGES,
    its lower end left out (there nothing is merged).
    """
    entry = MERGES[method]
    scale = entry.parameter("lambda")
    if scale is None or scale.search is None:
        raise ValueError(f"{method} has no scale to tune")
    low, high = scale.search
    scales = np.linspace(low, high, _SCALES[method] + 1)[1:]
    densities: tuple[float | None, ...] = _DENSITIES if entry.parameter("density") else (None,)
    parents = tuple(f.id for f in start.founders)
    candidates = []
    for value, density in itertools.product(scales, densities):
        params = {"lambda": float(value)} | ({} if density is None else {"density": density})
        recipe = merge(method, start.founders, base=start.base, params=params, seed=start.seed)
        candidates.append(Candidate(recipe, f"static:{method}", parents, start.seed))
    return candidates
