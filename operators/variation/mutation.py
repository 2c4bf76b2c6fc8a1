"""Mutation: small random changes to weights (GENOME's), or to merge coefficients."""

import math
from collections.abc import Sequence

import numpy as np

from operators.recipe import Noise, Recipe, collect, linear
from operators.recipe.coefficients import Coefficient, Grouped, Rule


def perturb(recipe: Recipe, *, sigma: float, rate: float, seed: int) -> Recipe:
    """θ' = θ + m⊙ε, m ~ Bernoulli(``rate``), ε ~ N(0, ``sigma``²), for every tensor.

    Source: arXiv 2503.01155, section 3.2.

    Raises:
        ValueError: ``sigma`` is not positive and finite, or ``rate`` is outside (0, 1].
    """
    _check_sigma(sigma)
    return linear([(recipe, 1.0), (Noise(seed, rate), sigma)])


def perturb_coefficients(
    recipe: Recipe,
    founders: Sequence[Recipe],
    base: Recipe,
    rng: np.random.Generator,
    *,
    sigma: float,
    rate: float,
    groups: int = 1,
) -> Recipe:
    """Add N(0, ``sigma``²) to the task-vector weight of each founder with probability ``rate``.

    θ' = θ + Σᵢ mᵢεᵢ(θᵢ − θ_b): GENOME's mutation on the vector of merge coefficients instead of on the
    weights. With ``groups`` > 1 each founder has one coefficient for each group of layers. At least
    one coefficient changes, so a mutant is never its parent.
    """
    _check_sigma(sigma)
    shape = (len(founders), groups)
    mask = rng.random(shape) < rate
    change = np.where(mask, rng.normal(0.0, sigma, shape), 0.0)
    if not mask.any():
        at = tuple(rng.integers(0, shape))
        change[at] = rng.normal(0.0, sigma)
    return linear([(recipe, 1.0), *task_vector_terms(founders, base, change)])


def orthogonal_coefficients(
    previous: np.ndarray[tuple[int, ...], np.dtype[np.float64]], rng: np.random.Generator
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """A random unit vector of coefficients at right angles to all ``previous``: something new.

    ``previous`` has shape (vectors, founders); the vector, of shape (founders,), is uniform over what
    they leave, so dependent or zero rows among them do no harm.

    Source: MixtureGrowth's novelty, arXiv 2311.04251.

    Raises:
        ValueError: ``previous`` span all directions, so there is nothing new left.
    """
    rows = np.atleast_2d(np.asarray(previous, dtype=np.float64))
    _, sizes, directions = np.linalg.svd(rows, full_matrices=True)
    largest = float(sizes.max(initial=0.0))
    rank = int((sizes > largest * max(rows.shape) * np.finfo(np.float64).eps).sum())
    rest = directions[rank:]
    if not len(rest):
        raise ValueError(
            f"mutation: {len(rows)} coefficient vectors span all {rows.shape[1]} founders; there is "
            "no direction left at right angles to them. Give fewer."
        )
    drawn = rng.normal(size=len(rest)) @ rest
    return np.asarray(drawn / np.linalg.norm(drawn), dtype=np.float64)


def task_vector_terms(
    founders: Sequence[Recipe],
    base: Recipe,
    weights: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> tuple[tuple[Recipe, Coefficient], ...]:
    """Σᵢ wᵢ·(θᵢ − θ_b) as terms of a sum; ``weights`` has shape (founders,) or (founders, groups)."""
    rows = np.asarray(weights, dtype=np.float64).reshape(len(founders), -1)
    terms: list[tuple[Recipe, Coefficient]] = []
    for founder, row in zip(founders, rows, strict=True):
        coefficient = _coefficient(row)
        negative = _coefficient(-row)
        terms += [(founder, coefficient), (base, negative)]
    return collect(terms)


def from_task_vectors(
    founders: Sequence[Recipe],
    base: Recipe,
    weights: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> Recipe:
    """θ_b + Σᵢ wᵢ·(θᵢ − θ_b); ``weights`` has shape (founders,) or (founders, groups)."""
    return linear([(base, 1.0), *task_vector_terms(founders, base, weights)])


def _coefficient(row: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Coefficient:
    values = tuple(float(v) for v in row)
    return values[0] if len(values) == 1 else Grouped((Rule((), values),))


def _check_sigma(sigma: float) -> None:
    if not (math.isfinite(sigma) and sigma > 0.0):
        raise ValueError(f"mutation: sigma must be positive and finite, got {sigma}")
