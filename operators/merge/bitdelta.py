"""``bitdelta``: task vectors as signs and one size each, and signs of what is then left."""

from collections.abc import Sequence

import torch
from torch import Tensor

from operators.merge.blocks import total
from operators.merge.linear import SCALE, WEIGHT, divisor, required, weighted_sum
from operators.merge.table import MergeMethod, Parameter, Values


def signs(delta: Tensor, *, bits: int, rows: bool, zero: str) -> Tensor:
    """``delta`` in ``bits`` bits an entry, same shape: Σ over bits of mean|ρ|·sgn(ρ), ρ what is left.

    ``rows`` gives each row (axis 0; the mean runs over the rest) a size of its own; a vector has one.
    ``zero`` says what sgn(0) is. ``zero``: 0, and entries that are 0 don't count in the mean, so what
    did not change stays. ``plus``: +1 and the mean over all (the published code).
    """
    left = delta.reshape(delta.shape[0] if rows and delta.ndim > 1 else 1, -1).clone()
    made = torch.zeros_like(left)
    for _ in range(bits):
        sizes = _sums(left.abs())
        if zero == "zero":
            means = sizes / (left != 0.0).sum(dim=1, keepdim=True).clamp_(min=1)
            step = left.sign() * means.to(left.dtype)
        else:
            means = sizes / left.shape[1]
            step = torch.where(left >= 0.0, means, -means).to(left.dtype)
        made += step
        left -= step
    return made.view(delta.shape)


def _sums(rows: Tensor) -> Tensor:
    """Σ of each row in float64, shape (rows, 1), the same whatever the number of threads."""
    if len(rows) == 1:
        return torch.tensor([[total(rows[0])]], dtype=torch.float64, device=rows.device)
    return rows.sum(dim=1, keepdim=True, dtype=torch.float64)


def _bitdelta(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    """θ_b + λ·Σ wᵢ·signs(τᵢ), over Σw with ``normalize``: the paper's for one model, a sum for more.

    Never quite neutral: a model merged with itself comes back as closely as ``bits`` allow, exactly
    only where all |δ| of a tensor (row) are one size.
    """
    origin, weights = required(base), values.numbers("weight")
    bits, rows, zero = int(values.number("bits")), values.switch("rows"), values.word("zero")
    made = [signs(x - origin, bits=bits, rows=rows, zero=zero) for x in inputs]
    task = weighted_sum(made, weights)
    if values.switch("normalize"):
        task /= divisor(weights)
    return task.mul_(values.number("lambda")).add_(origin)


BITDELTA = MergeMethod(
    "bitdelta",
    _bitdelta,
    (
        WEIGHT,
        SCALE,
        Parameter("bits", 1.0, valid=(1.0, 16.0), search=(1.0, 4.0), integer=True),
        Parameter("rows", False),
        Parameter("zero", "zero", choices=("zero", "plus")),
        Parameter("normalize", True),
    ),
    base="required",
    inputs=(1, None),
    source="Liu et al. 2024, arXiv 2402.10193",
)
