"""``exclusive``: models take turns to claim entries; nothing is averaged."""

from collections.abc import Sequence

import torch
from torch import Tensor

from operators.merge.linear import SCALE, required
from operators.merge.order import largest
from operators.merge.table import MergeMethod, Parameter, Values


def claimed(deltas: Sequence[Tensor], keep: Sequence[float], order: Sequence[int]) -> Tensor:
    """Each entry's δ from the model that claimed it, 0 where none did; the shape of one δ.

    In ``order``, model i claims its round(keepᵢ·elements) entries of greatest saliency δ² among those
    still free, or all that are left; earlier entries first among equals. An entry that it did not
    change is never claimed: it stays free for the others.
    """
    free = torch.ones(deltas[0].shape, dtype=torch.bool, device=deltas[0].device)
    merged = torch.zeros_like(deltas[0])
    for i in order:
        # |δ| has the order of δ² and does not underflow; -1 is below all that is free.
        saliency = torch.where(free, deltas[i].abs(), -1.0)
        mine = largest(saliency, round(keep[i] * saliency.numel())) & (saliency > 0.0)
        merged = torch.where(mine, deltas[i], merged)
        free &= ~mine
    return merged


def _exclusive(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    """Turns go by falling ``priority``, equal ones by the order of the inputs.

    Neutral: ``keep`` 1 and ``lambda`` 1 (the first model then takes all that it changed).
    """
    origin, priority = required(base), values.numbers("priority")
    order = sorted(range(len(inputs)), key=lambda i: -priority[i])
    task = claimed([x - origin for x in inputs], values.numbers("keep"), order)
    return task.mul_(values.number("lambda")).add_(origin)


EXCLUSIVE = MergeMethod(
    "exclusive",
    _exclusive,
    (
        Parameter("keep", 0.5, valid=(0.0, 1.0), search=(0.05, 1.0), per_input=True),
        Parameter("priority", 0.0, search=(0.0, 1.0), per_input=True),
        SCALE,
    ),
    base="required",
    inputs=(1, None),
    source="OBIM (Wang et al. 2025, arXiv 2502.12217) with δ² as saliency, which needs no data",
)
