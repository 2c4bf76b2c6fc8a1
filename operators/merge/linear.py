"""Weighted sums: ``linear`` and ``task_arithmetic``."""

from collections.abc import Sequence

import torch
from torch import Tensor

from operators.merge.blocks import BLOCK, flat, spans, whole
from operators.merge.table import Blocks, MergeMethod, Parameter, Values

WEIGHT = Parameter("weight", 1.0, search=(0.0, 1.5), per_input=True)
SCALE = Parameter("lambda", 1.0, search=(0.0, 2.0))


def weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Σ wᵢ·tᵢ, element by element, in the order given; in the dtype of the first.

    Multiply and add round separately on purpose: a fused multiply-add in one code path and not in
    another would make the last bit depend on where in the tensor an element lies.
    """
    made = torch.empty_like(tensors[0], memory_format=torch.contiguous_format)
    out, vectors = made.view(-1), flat(tensors)
    scratch = torch.empty_like(out[:BLOCK])
    for start, stop in spans(out.numel()):
        add_up(out[start:stop], [v[start:stop] for v in vectors], weights, scratch[: stop - start])
    return made


def add_up(
    out: Tensor, parts: Sequence[Tensor], weights: Sequence[float], scratch: Tensor
) -> Tensor:
    """Σ wᵢ·pᵢ of one block's parts, written to ``out``; ``scratch`` is overwritten."""
    out.zero_()
    for part, weight in zip(parts, weights, strict=True):
        out.add_(torch.mul(part, weight, out=scratch))
    return out


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
) -> Blocks:
    vectors, weights = flat(inputs), values.numbers("weight")
    by = divisor(weights) if values.switch("normalize") else 1.0

    def blocks(start: int, stop: int) -> Tensor:
        merged = torch.empty(stop - start, device=vectors[0].device)
        scratch = torch.empty_like(merged)
        add_up(merged, [v[start:stop].float() for v in vectors], weights, scratch)
        return merged.div_(by) if by != 1.0 else merged

    return blocks


def _task_arithmetic(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Blocks:
    (origin, *vectors), weights = flat([required(base), *inputs]), values.numbers("weight")
    by = divisor(weights) if values.switch("normalize") else 1.0

    def blocks(start: int, stop: int) -> Tensor:
        here = origin[start:stop].float()
        task = torch.empty(stop - start, device=origin.device)
        scratch = torch.empty_like(task)
        add_up(task, [v[start:stop].float() - here for v in vectors], weights, scratch)
        if by != 1.0:
            task.div_(by)
        return task.mul_(values.number("lambda")).add_(here)

    return blocks


LINEAR = MergeMethod(
    "linear",
    whole(_linear),
    (WEIGHT, Parameter("normalize", True)),
    base="none",
    inputs=(1, None),
    source="Wortsman et al. 2022, arXiv 2203.05482",
    blocks=_linear,
)
TASK_ARITHMETIC = MergeMethod(
    "task_arithmetic",
    whole(_task_arithmetic),
    (WEIGHT, SCALE, Parameter("normalize", False)),
    base="required",
    inputs=(1, None),
    source="Ilharco et al. 2023, arXiv 2212.04089",
    blocks=_task_arithmetic,
)
