"""GENOME+'s succession: individuals move towards the best ones and away from the worst, as in
particle swarms.

Source: arXiv 2503.01155, section 3.3; Model Swarms (ICML 2025).
"""

from dataclasses import dataclass

import numpy as np

from operators.recipe import Recipe, Terms, collect, linear
from operators.recipe.coefficients import Coefficient, multiply


@dataclass(frozen=True, slots=True)
class Pull:
    """φ: how strongly a velocity keeps on, and is drawn to each of three places."""

    inertia: float = 0.2
    cognitive: float = 0.2
    social: float = 0.2
    repel: float = 0.1


def difference(a: Recipe, b: Recipe) -> Terms:
    """a − b as terms of a sum (no terms where they are equal)."""
    return collect([(a, 1.0), (b, -1.0)])


def succeed(
    x: Recipe,
    velocity: Terms,
    *,
    personal_best: Recipe,
    global_best: Recipe,
    global_worst: Recipe,
    pull: Pull,
    step: float,
    rng: np.random.Generator,
) -> tuple[Recipe, Terms]:
    """One move: the new position x + λv, and the new velocity

    v = (1/C)·[r₁φ_in·v + r₂φ_cog·(p−x) + r₃φ_soc·(g−x) − r₄φ_rep·(w−x)], C = Σ r_kφ_k,

    with r ~ U(0, 1) drawn anew for every individual and move. ``step`` is λ. The moved individual is
    another individual: it has another id, and no fitness yet.
    """
    inertia, cognitive, social, repel = rng.random(4) * (
        pull.inertia,
        pull.cognitive,
        pull.social,
        pull.repel,
    )
    total = float(inertia + cognitive + social + repel)
    if total <= 0.0:
        return x, ()
    parts: list[tuple[Recipe, Coefficient]] = []
    for pull_strength, terms in (
        (inertia, velocity),
        (cognitive, difference(personal_best, x)),
        (social, difference(global_best, x)),
        (-repel, difference(global_worst, x)),
    ):
        parts += _scaled(terms, float(pull_strength) / total)
    moved = collect(parts)
    return linear([(x, 1.0), *_scaled(moved, step)]), moved


def _scaled(terms: Terms, factor: float) -> list[tuple[Recipe, Coefficient]]:
    return [(recipe, multiply(coefficient, factor)) for recipe, coefficient in terms]
