"""``widen``: columns split into magnitude and direction, weighted by how far each moved."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from operators.merge.linear import SCALE, required
from operators.merge.table import MergeMethod, Parameter, Values

_BLOCK = 2**22  # elements of a matrix that are float64 at a time


def importance(significance: Tensor, s: float, t: float) -> Tensor:
    """Softmax over the models; ``t`` where a model's significance is above ``s`` times its mean.

    ``significance`` and what is given have shape (models, columns).
    """
    scores = significance.softmax(dim=0)
    scores[significance > s * significance.mean(dim=1, keepdim=True)] = t
    return scores


def column_changes(matrix: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
    """How far each column moved: |‖x‖ − ‖b‖| and 1 − cos(x, b), float64, shape (columns,).

    1 − cos is taken as ½‖x/‖x‖ − b/‖b‖‖², which keeps its digits where the two nearly agree, and a
    column of zeros has direction 0: two of them did not turn, and next to another it counts ½.
    """
    length = torch.linalg.vector_norm(matrix, dim=0, dtype=torch.float64)
    base_length = torch.linalg.vector_norm(base, dim=0, dtype=torch.float64)
    unit = torch.where(length > 0.0, length, 1.0)
    base_unit = torch.where(base_length > 0.0, base_length, 1.0)
    turned = torch.zeros_like(length)
    rows = max(1, _BLOCK // matrix.shape[1])
    for start in range(0, len(matrix), rows):
        x, b = matrix[start : start + rows].double(), base[start : start + rows].double()
        turned += (x / unit).sub_(b / base_unit).square_().sum(dim=0)
    return (length - base_length).abs_(), turned.mul_(0.5)


def disentangled(
    inputs: Sequence[Tensor], base: Tensor, *, s: float, t: float, scale: float
) -> Tensor:
    """θ_b + λ·Σ ½(S_m + S_D)·δ for matrices of shape (rows, columns), or vectors.

    S_m and S_D are :func:`importance` of the rank of each column's change, in magnitude and in
    direction, within its own model: 0 to (columns − 1)/columns, of equals the earlier below. A vector
    has no columns: there the importance of each entry comes from |δ| itself, not from its rank.
    """
    if base.ndim < 2:
        weights = importance(torch.stack([(x - base).abs() for x in inputs]), s, t)
    else:
        moved, turned = zip(*(column_changes(x, base) for x in inputs), strict=True)
        weights = (importance(_ranks(moved), s, t) + importance(_ranks(turned), s, t)) * 0.5
    merged = torch.zeros_like(base)
    for x, weight in zip(inputs, weights, strict=True):
        merged += (x - base) * weight.to(base.dtype)
    return merged.mul_(scale).add_(base)


def _ranks(changes: Sequence[Tensor]) -> Tensor:
    order = torch.stack(list(changes)).argsort(dim=1, stable=True)
    steps = torch.arange(order.shape[1], dtype=torch.float64, device=order.device)
    spread = (steps / order.shape[1]).expand(order.shape)
    return torch.empty_like(spread).scatter_(1, order, spread)


def _widen(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    """Columns are inputs of a layer; in ``embed_tokens.weight``, where a row is a token, they are rows.

    More than two axes count as one matrix, all after the first joined. Neutral: ``t`` = 1/n and
    ``lambda`` 1, where n equal models give the model; at the published ``t`` = 1 the change grows
    with n.
    """
    origin = required(base)
    flat = [x.flatten(1) if x.ndim > 1 else x.reshape(-1) for x in (*inputs, origin)]
    turn = origin.ndim == 2 and name.endswith("embed_tokens.weight")
    *matrices, base_matrix = [x.T for x in flat] if turn else flat
    merged = disentangled(
        matrices,
        base_matrix,
        s=values.number("s"),
        t=values.number("t"),
        scale=values.number("lambda"),
    )
    return (merged.T if turn else merged).reshape(origin.shape)


WIDEN = MergeMethod(
    "widen",
    _widen,
    (
        Parameter("s", 1.0, valid=(0.0, math.inf), search=(0.0, 2.0)),
        Parameter("t", 1.0, valid=(0.0, math.inf), search=(0.0, 1.5)),
        SCALE,
    ),
    base="required",
    inputs=(1, None),
    source="Yu et al. 2024, arXiv 2408.03092",
)
