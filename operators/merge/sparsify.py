"""Thin out each task vector, then add up or elect signs: ``dare_linear``, DELLA and Model Breadcrumbs.

What is left of a task vector δ may be rescaled: ``l1`` keeps Σ|δ| (what mergekit does),
``inverse_density`` divides by the probability of being kept (the papers), ``none`` leaves it.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from operators.merge.blocks import BLOCK, total
from operators.merge.darex import Q_EXPONENT, RESCALE
from operators.merge.linear import SCALE, WEIGHT, divisor, required, weighted_sum
from operators.merge.order import largest
from operators.merge.table import Function, MergeMethod, Parameter, Values
from operators.merge.ties import DENSITY, drop_and_rescale, elect_and_merge
from operators.tensors.noise import bernoulli_each

# (δ, parameters, index of the input, seed, name to draw by) -> the thinned δ, maybe δ itself
Thin = Callable[[Tensor, Values, int, int, str], Tensor]


def keep_ranks(magnitude: Tensor, low: int, count: int) -> Tensor:
    """A mask of ``count`` elements, those of rank ``low`` and up; rank 0 is the smallest magnitude.

    Among equal magnitudes the earlier elements rank higher, so the count is exact.
    """
    above = magnitude.numel() - low
    return largest(magnitude, above) ^ largest(magnitude, above - count)


def keep_probabilities(delta: Tensor, density: float, epsilon: float) -> Tensor:
    """DELLA's probability of keeping each element of ``delta``, shape as ``delta``, float32.

    From density − ε for the smallest magnitude of a row to density + ε for the largest, evenly by
    rank (a negative ε prefers the small ones); a row runs along axis 1, and a vector is one row. Of equal magnitudes the later rank higher.
    Where mergekit fails we go on: probabilities are cut to [0, 1], and the only element of a row is
    kept with probability ``density``.
    """
    rows = delta.movedim(1, -1) if delta.ndim > 1 else delta.reshape(1, -1)
    size = rows.shape[-1]
    if size == 1:
        return torch.full_like(delta, density)
    by_rank = torch.linspace(-1.0, 1.0, size, dtype=torch.float64) * epsilon + density
    spread = by_rank.clamp_(0.0, 1.0).float().to(delta.device)
    made = torch.empty(rows.shape, device=delta.device)
    out, vectors = made.view(-1, size), rows.reshape(-1, size)
    step = max(1, BLOCK // size)
    for at in range(0, len(out), step):
        block = vectors[at : at + step]
        out[at : at + step].scatter_(1, _order(block), spread.expand(block.shape))
    return made.movedim(-1, 1) if delta.ndim > 1 else made.view(delta.shape)


def _order(rows: Tensor) -> Tensor:
    """For each row, where its elements stand in order of magnitude; int64, shape as ``rows``.

    Floats that are not negative are in the order of their bits: with the place in the lower half, one
    integer holds both, all are different, and sorting them is several times faster than an argsort.
    """
    bits = rows.abs().cpu().numpy().view(np.uint32).astype(np.int64)
    keys = (bits << 32) | np.arange(rows.shape[1], dtype=np.int64)
    keys.sort(axis=1)
    return torch.from_numpy(keys & 0xFFFFFFFF).to(rows.device)


def _dare(delta: Tensor, values: Values, index: int, seed: int, name: str) -> Tensor:
    density = values.numbers("density")[index]
    rescale, exponent = values.word("rescale"), values.number("q_exponent")
    return drop_and_rescale(delta, density, rescale, seed, name, exponent)


def _della(delta: Tensor, values: Values, index: int, seed: int, name: str) -> Tensor:
    density = values.numbers("density")[index]
    if density >= 1.0 or density <= 0.0:
        return delta if density >= 1.0 else torch.zeros_like(delta)
    rates = keep_probabilities(delta, density, values.numbers("epsilon")[index])
    kept = delta * bernoulli_each(seed, name, rates)
    if values.word("rescale") == "inverse_density":
        return kept.div_(torch.where(kept == 0.0, 1.0, rates))
    return _rescaled(kept, delta, values.word("rescale"), density)


def _breadcrumbs(delta: Tensor, values: Values, index: int, seed: int, name: str) -> Tensor:
    """Without the largest ⌊γ·n⌋ magnitudes and the smallest, so that ⌊density·n⌋ are left.

    Fewer of the largest are dropped where that would leave too few; a density of 1 keeps all.
    """
    density, size = values.numbers("density")[index], delta.numel()
    if density >= 1.0:
        return delta
    left, top = int(density * size), int(min(1.0, values.numbers("gamma")[index]) * size)
    kept = delta * keep_ranks(delta.abs(), max(0, size - left - top), left)
    return _rescaled(kept, delta, values.word("rescale"), density)


def _rescaled(kept: Tensor, delta: Tensor, rescale: str, density: float) -> Tensor:
    if rescale == "l1":
        left = total(kept.abs().reshape(-1))
        if left > 0.0:
            kept *= total(delta.abs().reshape(-1)) / left
    elif rescale == "inverse_density" and density > 0.0:
        kept /= density
    return kept


def _thinned(thin: Thin, *, elect: bool) -> Function:
    def merged(
        inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
    ) -> Tensor:
        origin, weights = required(base), values.numbers("weight")
        normalize = values.switch("normalize")
        parts = [thin(x - origin, values, i, seed, f"{name}/{i}") for i, x in enumerate(inputs)]
        if elect:
            task = elect_and_merge(parts, weights, normalize=normalize)
        else:
            task = weighted_sum(parts, weights)
            if normalize:
                task /= divisor(weights)
        return task.mul_(values.number("lambda")).add_(origin)

    return merged


def _method(
    name: str,
    thin: Thin,
    extra: tuple[Parameter, ...] = (),
    *,
    elect: bool,
    normalize: bool,
    rescale: str,
    source: str,
    choices: tuple[str, ...] = ("l1", "inverse_density", "none"),
) -> MergeMethod:
    return MergeMethod(
        name,
        _thinned(thin, elect=elect),
        (
            WEIGHT,
            DENSITY,
            *extra,
            SCALE,
            Parameter("normalize", normalize),
            Parameter("rescale", rescale, choices=choices),
        ),
        base="required",
        inputs=(1, None),
        source=source,
        seeded=thin is not _breadcrumbs,
    )


EPSILON = Parameter("epsilon", 0.15, valid=(-1.0, 1.0), search=(0.0, 0.3), per_input=True)
GAMMA = Parameter("gamma", 0.01, valid=(0.0, math.inf), search=(0.0, 0.2), per_input=True)

DARE_LINEAR = _method(
    "dare_linear",
    _dare,
    (Q_EXPONENT,),
    elect=False,
    normalize=False,
    rescale="l1",
    source="Yu et al. 2024, arXiv 2311.03099; darex: Deng et al. 2024, arXiv 2410.09344",
    choices=RESCALE.choices,
)
DELLA = _method(
    "della",
    _della,
    (EPSILON,),
    elect=True,
    normalize=True,
    rescale="l1",
    source="Deep et al. 2024, arXiv 2406.11617",
)
DELLA_LINEAR = _method(
    "della_linear",
    _della,
    (EPSILON,),
    elect=False,
    normalize=False,
    rescale="l1",
    source="Deep et al. 2024, arXiv 2406.11617",
)
BREADCRUMBS = _method(
    "breadcrumbs",
    _breadcrumbs,
    (GAMMA,),
    elect=False,
    normalize=False,
    rescale="none",
    source="Davari and Belilovsky 2024, arXiv 2312.06795",
)
BREADCRUMBS_TIES = _method(
    "breadcrumbs_ties",
    _breadcrumbs,
    (GAMMA,),
    elect=True,
    normalize=False,
    rescale="none",
    source="Davari and Belilovsky 2024, arXiv 2312.06795; signs as in arXiv 2306.01708",
)
