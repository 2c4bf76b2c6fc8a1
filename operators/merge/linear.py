"""Weighted sums: ``linear`` and ``task_arithmetic``."""

from collections.abc import Sequence

from torch import Tensor, zeros_like

from operators.merge.table import MergeMethod, Parameter, Values

WEIGHT = Parameter("weight", 1.0, search=(0.0, 1.5), per_input=True)
SCALE = Parameter("lambda", 1.0, search=(0.0, 2.0))


def weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Σ wᵢ·tᵢ, element by element, in the order given.

    Multiply and add round separately on purpose: a fused multiply-add in one code path and not in
    another would make the last bit depend on where in the tensor an element lies.
    """
    total = zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        total += tensor * weight
    return total


def required(base: Tensor | None) -> Tensor:
    """The base, which :func:`operators.merge.merge` promises to the methods that need one."""
    if base is None:
        raise TypeError("this method needs a base")
    return base


def divisor(weights: Sequence[float]) -> float:
    """Σw, or 1 where that is nearly 0 and normalising has no meaning."""
    total = sum(weights)
    return 1.0 if abs(total) < 1e-8 else total


def _linear(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    weights = values.numbers("weight")
    merged = weighted_sum(inputs, weights)
    return merged / divisor(weights) if values.switch("normalize") else merged


def _task_arithmetic(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    weights, origin = values.numbers("weight"), required(base)
    task = weighted_sum([x - origin for x in inputs], weights)
    if values.switch("normalize"):
        task /= divisor(weights)
    return task.mul_(values.number("lambda")).add_(origin)


LINEAR = MergeMethod(
    "linear",
    _linear,
    (WEIGHT, Parameter("normalize", True)),
    base="none",
    inputs=(1, None),
    source="Wortsman et al. 2022, arXiv 2203.05482",
)
TASK_ARITHMETIC = MergeMethod(
    "task_arithmetic",
    _task_arithmetic,
    (WEIGHT, SCALE, Parameter("normalize", False)),
    base="required",
    inputs=(1, None),
    source="Ilharco et al. 2023, arXiv 2212.04089",
)
