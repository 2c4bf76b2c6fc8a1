"""``slerp``: along the great circle between two flattened tensors."""

import math
from collections.abc import Sequence

from torch import Tensor

from operators.merge.linear import weighted_sum
from operators.merge.table import MergeMethod, Parameter, Values

COLINEAR = 0.9995  # above this |cosine| the arc is a straight line in float32


def _slerp(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    """``t`` = 0 is the first input, 1 the second. Weights act on the tensors, not on unit vectors.

    The angle comes from float64 sums; a zero tensor is at right angles to everything; (anti)parallel
    tensors are interpolated on the straight line.
    """
    a, b = inputs
    t = values.number("t")
    flat_a, flat_b = a.reshape(-1).double(), b.reshape(-1).double()
    lengths = float(flat_a.norm()) * float(flat_b.norm())
    cosine = float(flat_a @ flat_b) / lengths if lengths > 0.0 else 0.0
    if abs(cosine) > COLINEAR:
        return weighted_sum(inputs, (1.0 - t, t))
    angle = math.acos(cosine)
    weights = (math.sin((1.0 - t) * angle), math.sin(t * angle))
    return weighted_sum(inputs, [w / math.sin(angle) for w in weights])


SLERP = MergeMethod(
    "slerp",
    _slerp,
    (Parameter("t", 0.5, bounds=(0.0, 1.0), search=(0.0, 1.0)),),
    base="none",
    inputs=(2, 2),
    source="Shoemake 1985",
)
