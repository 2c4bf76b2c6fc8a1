"""GENOME's selection: elites stay, the rest are drawn in proportion to fitness.

Source: arXiv 2503.01155, section 3.2.
"""

import math
from collections.abc import Sequence

import numpy as np

from operators.variation.crossover import draw_without_replacement, proportions


def ranking(fitness: Sequence[float]) -> list[int]:
    """Indices from best to worst; failed individuals (not finite) last, ties by position."""
    return sorted(
        range(len(fitness)),
        key=lambda i: (
            not math.isfinite(fitness[i]),
            -fitness[i] if math.isfinite(fitness[i]) else 0,
        ),
    )


def select(
    fitness: Sequence[float], size: int, rng: np.random.Generator, *, elite: float
) -> list[int]:
    """Indices of the survivors, best first.

    The best ``max(1, round(elite·size))`` stay. The others are drawn without replacement in proportion
    to fitness, down to ``size``. Failed individuals never survive, so fewer than ``size`` may be left.
    """
    alive = [i for i in ranking(fitness) if math.isfinite(fitness[i])]
    if len(alive) <= size:
        return alive
    elites = min(size, max(1, round(elite * size)))
    rest = [fitness[i] for i in alive[elites:]]
    drawn = draw_without_replacement(
        proportions(rest), np.ones(len(rest), dtype=np.bool_), size - elites, rng
    )
    return alive[:elites] + [alive[elites + k] for k in sorted(drawn)]
