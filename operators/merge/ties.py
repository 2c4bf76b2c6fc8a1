"""``ties`` and ``dare_ties``: thin out each task vector, elect a sign, keep what agrees with it."""

from collections.abc import Sequence
from math import floor

import torch
from torch import Tensor

from operators.merge.linear import SCALE, WEIGHT, required
from operators.merge.table import MergeMethod, Parameter, Values
from operators.noise import bernoulli


def keep_largest(delta: Tensor, density: float) -> Tensor:
    """``delta`` with all but its ``max(1, ⌊density·n⌋)`` largest magnitudes set to 0.

    Among equal magnitudes at the threshold the earlier elements are kept, so the count is exact.
    """
    size = delta.numel()
    if density >= 1.0 or size <= 1:
        return delta
    count = max(1, floor(density * size))
    magnitude = delta.abs().reshape(-1)
    threshold = magnitude.kthvalue(size - count + 1).values
    keep = magnitude > threshold
    tied = (magnitude == threshold).nonzero().reshape(-1)
    keep[tied[: count - int(keep.sum())]] = True
    return delta * keep.view_as(delta)


def drop_and_rescale(delta: Tensor, density: float, rescale: str, seed: int, name: str) -> Tensor:
    """Keep each element with probability ``density`` and rescale what is left.

    ``rescale``: ``l1`` keeps Σ|δ| (what mergekit does), ``inverse_density`` divides by the density
    (the DARE paper), ``none`` leaves the size as it is.
    """
    if density >= 1.0:
        return delta
    kept = delta * bernoulli(seed, name, tuple(delta.shape), density).to(delta.device)
    if rescale == "l1":
        left = kept.abs().sum(dtype=torch.float64)
        if float(left) > 0.0:
            kept *= float(delta.abs().sum(dtype=torch.float64) / left)
    elif rescale == "inverse_density" and density > 0.0:
        kept /= density
    return kept


def elect_and_merge(
    deltas: Sequence[Tensor], weights: Sequence[float], *, normalize: bool
) -> Tensor:
    """Sum the weighted deltas whose sign is the sign of Σ wᵢδᵢ (0 counts as +).

    With ``normalize``, divide each element by the weights that took part there (0 counts as 1): two
    equal models then give the model, not half of it.
    """
    weighted = [d * w for d, w in zip(deltas, weights, strict=True)]
    total = torch.zeros_like(weighted[0])
    for part in weighted:
        total += part
    sign = torch.where(total >= 0, 1.0, -1.0)
    merged, share = torch.zeros_like(total), torch.zeros_like(total)
    for part, weight in zip(weighted, weights, strict=True):
        agrees = part.sign() == sign
        merged += part * agrees
        share += agrees * weight
    if normalize:
        merged /= torch.where(share.abs() < 1e-8, 1.0, share)
    return merged


def _ties(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    origin, density = required(base), values.numbers("density")
    thin = [keep_largest(x - origin, k) for x, k in zip(inputs, density, strict=True)]
    merged = elect_and_merge(thin, values.numbers("weight"), normalize=values.switch("normalize"))
    return merged.mul_(values.number("lambda")).add_(origin)


def _dare_ties(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    origin, rescale = required(base), values.word("rescale")
    thin = [
        drop_and_rescale(x - origin, k, rescale, seed, f"{name}/{i}")
        for i, (x, k) in enumerate(zip(inputs, values.numbers("density"), strict=True))
    ]
    merged = elect_and_merge(thin, values.numbers("weight"), normalize=values.switch("normalize"))
    return merged.mul_(values.number("lambda")).add_(origin)


DENSITY = Parameter("density", 0.5, bounds=(0.0, 1.0), search=(0.05, 1.0), per_input=True)

TIES = MergeMethod(
    "ties",
    _ties,
    (WEIGHT, DENSITY, SCALE, Parameter("normalize", True)),
    base="required",
    inputs=(1, None),
    source="Yadav et al. 2023, arXiv 2306.01708",
)
DARE_TIES = MergeMethod(
    "dare_ties",
    _dare_ties,
    (
        WEIGHT,
        DENSITY,
        SCALE,
        Parameter("normalize", False),
        Parameter("rescale", "l1", choices=("l1", "inverse_density", "none")),
    ),
    base="required",
    inputs=(1, None),
    source="Yu et al. 2024, arXiv 2311.03099",
    seeded=True,
)
