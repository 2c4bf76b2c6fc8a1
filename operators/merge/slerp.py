"""``slerp``: along the great circle between two flattened tensors."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from operators.merge.blocks import BLOCK, flat, spans, total, whole
from operators.merge.linear import add_up
from operators.merge.table import Blocks, MergeMethod, Parameter, Values

COLINEAR = 0.9995  # above this |cosine| the arc is a straight line in float32


def _slerp(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Blocks:
    """``t`` = 0 is the first input, 1 the second; other values go on along the same circle (or line).

    Weights act on the tensors, not on unit vectors. The angle comes from float64 sums; a zero tensor is at right angles to everything; (anti)parallel
    tensors are interpolated on the straight line.
    """
    a, b = flat(inputs)
    weights = _shares(_cosine(a, b), values.number("t"))

    def blocks(start: int, stop: int) -> Tensor:
        merged = torch.empty(stop - start, device=a.device)
        scratch = torch.empty_like(merged)
        return add_up(merged, [v[start:stop].float() for v in (a, b)], weights, scratch)

    return blocks


def _shares(cosine: float, t: float) -> tuple[float, float]:
    if abs(cosine) > COLINEAR:
        return 1.0 - t, t
    angle = math.acos(cosine)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def _cosine(a: Tensor, b: Tensor) -> float:
    sums: list[tuple[float, ...]] = [(0.0, 0.0, 0.0)]
    # Buffers that stay: memory of this size would go back to the system after every block.
    scratch = torch.empty(3, BLOCK, dtype=torch.float64, device=a.device)
    for start, stop in spans(a.numel()):
        x, y, product = scratch[:, : stop - start]
        x.copy_(a[start:stop])
        y.copy_(b[start:stop])
        pairs = ((x, x), (y, y), (x, y))
        sums.append(tuple(total(torch.mul(p, q, out=product)) for p, q in pairs))
    xx, yy, xy = (math.fsum(s) for s in zip(*sums, strict=True))
    lengths = math.sqrt(xx) * math.sqrt(yy)
    return xy / lengths if lengths > 0.0 else 0.0


SLERP = MergeMethod(
    "slerp",
    whole(_slerp),
    (Parameter("t", 0.5, search=(0.0, 1.0)),),
    base="none",
    inputs=(2, 2),
    source="Shoemake 1985",
    blocks=_slerp,
)
