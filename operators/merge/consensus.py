"""How far task vectors agree decides how they add up: ``model_stock``, ``sce``, ``ram``, ``ramplus_tl``."""

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from operators.merge.linear import required, weighted_sum
from operators.merge.order import largest
from operators.merge.spherical import differences, inner
from operators.merge.table import MergeMethod, Parameter, Values


def _model_stock(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    """base + t·mean δ, t = N·c / (1 + (N−1)·c), c the mean cosine between two task vectors.

    Of the flattened tensor, or (``filter_wise``) of each vector along the last axis. As in mergekit,
    lengths whose product is below 1e-6 count as 1e-6 and t is 0 where |1 + (N−1)·c| < 1e-6; near that
    point t grows without bound.
    """
    deltas, count = differences(inputs, required(base)), len(inputs)
    mean = weighted_sum(deltas, [1.0 / count] * count)
    if values.switch("filter_wise") and mean.ndim > 1:
        lengths = [_products(d, d).sqrt() for d in deltas]
        pairs = [
            (_products(deltas[i], deltas[j]) / (lengths[i] * lengths[j]).clamp(min=1e-6)).clamp(
                -1.0, 1.0
            )
            for i, j in combinations(range(count), 2)
        ]
        cosine = torch.stack(pairs).mean(dim=0)
        below = 1.0 + (count - 1) * cosine
        mean *= torch.where(below.abs() < 1e-6, 0.0, count * cosine / below).float()
    else:
        sizes = [math.sqrt(inner(d, d)) for d in deltas]
        cosines = [
            max(-1.0, min(1.0, inner(deltas[i], deltas[j]) / max(1e-6, sizes[i] * sizes[j])))
            for i, j in combinations(range(count), 2)
        ]
        one = sum(cosines) / len(cosines)
        under = 1.0 + (count - 1) * one
        mean *= 0.0 if abs(under) < 1e-6 else count * one / under
    return mean.add_(required(base))


def _products(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=-1, keepdim=True, dtype=torch.float64)


def _sce(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    """Select, calculate, erase: base + Σ wᵢmᵢδᵢ / max(Σ wᵢmᵢ, 1e-6).

    Select: of the elements whose variance over the models is not 0, the share ``select_topk`` with the
    greatest (rounded down; of equal ones the earlier); 1 or more keeps every element, 0 or less none. Calculate: wᵢ is the
    share of model i in Σ mean δ², equal shares where that sum is below 1e-6. Erase: mᵢ is whether δᵢ
    has the sign of Σδ, 0 counting as +.
    """
    deltas, share = list(differences(inputs, required(base))), values.number("select_topk")
    if share < 1.0:
        variance = _spread(deltas)
        count = int(int(variance.count_nonzero()) * share)
        keep = largest(variance, count)
        deltas = [d.mul_(keep) for d in deltas]
    energy = [inner(d, d) / d.numel() for d in deltas]
    total = sum(energy)
    weights = [1.0 / len(deltas) if total < 1e-6 else e / total for e in energy]
    sign = torch.where(weighted_sum(deltas, [1.0] * len(deltas)) >= 0, 1.0, -1.0)
    merged, shares = torch.zeros_like(sign), torch.zeros_like(sign)
    for delta, weight in zip(deltas, weights, strict=True):
        agrees = delta.sign() == sign
        merged += delta * agrees * weight
        shares += agrees * weight
    return merged.div_(shares.clamp_(min=1e-6)).add_(required(base))


def _spread(deltas: Sequence[Tensor]) -> Tensor:
    # N times the variance over the models, after Welford 1962: exactly 0 where all are equal.
    mean = deltas[0].clone()
    made = torch.zeros_like(mean)
    for count, delta in enumerate(deltas[1:], start=2):
        off = delta - mean
        mean += off / count
        made += off.mul_(delta - mean)
    return made


def _ram(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    """Elements that one model has changed keep its change; those of several take the owners' mean.

    A model has changed an element, and owns it, where |δ| > ``epsilon``; smaller changes are dropped.
    """
    return _by_owners(inputs, required(base), values.number("epsilon"), None)


def _ramplus_tl(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    """As ``ram``, and a model's own elements grow by 1 + r·min(α, shared/own) of this tensor."""
    boost = (values.number("r"), values.number("alpha"))
    return _by_owners(inputs, required(base), values.number("epsilon"), boost)


def _by_owners(
    inputs: Sequence[Tensor], base: Tensor, epsilon: float, boost: tuple[float, float] | None
) -> Tensor:
    deltas = differences(inputs, base)
    owned = [d.abs() > epsilon for d in deltas]
    owners = torch.zeros_like(base)
    for mine in owned:
        owners += mine
    single, merged = owners == 1, torch.zeros_like(base)
    owners.clamp_(min=1.0)
    for delta, mine in zip(deltas, owned, strict=True):
        part = delta.mul_(mine).div_(owners)
        if boost is not None:
            rate, most = boost
            alone = int((mine & single).sum())
            ratio = (int(mine.sum()) - alone) / alone if alone else 0.0
            part = torch.where(single, part * (1.0 + rate * min(most, ratio)), part)
        merged += part
    return merged.add_(base)


MODEL_STOCK = MergeMethod(
    "model_stock",
    _model_stock,
    (Parameter("filter_wise", False),),
    base="required",
    inputs=(2, None),
    source="Jang et al. 2024, arXiv 2403.19522",
)
SCE = MergeMethod(
    "sce",
    _sce,
    (Parameter("select_topk", 1.0, search=(0.05, 1.0)),),
    base="required",
    inputs=(1, None),
    source="Wan et al. 2024, arXiv 2408.07990",
)
EPSILON = Parameter("epsilon", 1e-5, search=(0.0, 1e-3))
RAM = MergeMethod(
    "ram",
    _ram,
    (EPSILON,),
    base="required",
    inputs=(1, None),
    source="arXiv 2601.13572, as in mergekit 0.1.5",
)
RAMPLUS_TL = MergeMethod(
    "ramplus_tl",
    _ramplus_tl,
    (
        Parameter("r", 0.1, search=(0.0, 1.0)),
        Parameter("alpha", 0.2, valid=(0.0, math.inf), search=(0.0, 1.0)),
        EPSILON,
    ),
    base="required",
    inputs=(1, None),
    source="arXiv 2601.13572 (within each tensor), as in mergekit 0.1.5",
)
