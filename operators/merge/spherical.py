"""Means on a sphere, besides ``slerp``: ``nuslerp``, ``multislerp`` and ``karcher``.

Each result is a weighted sum of the inputs, and lengths and angles alone decide the weights: those are
float64 numbers, so that the tensors are read once for them and once for the sum.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from operators.merge.blocks import flat, spans, total
from operators.merge.linear import WEIGHT, divisor, weighted_sum
from operators.merge.table import MergeMethod, Parameter, Values

PARALLEL = 1.0 - 2.0**-25  # a cosine beyond this is 1 in float32


def inner(a: Tensor, b: Tensor) -> float:
    """Σ a·b over all elements, in float64."""
    x, y = flat((a, b))
    blocks = spans(x.numel())
    return math.fsum(total(x[i:j].double() * y[i:j].double()) for i, j in blocks)


def differences(inputs: Sequence[Tensor], base: Tensor | None) -> Sequence[Tensor]:
    """The inputs themselves, or what they differ by from the base where there is one."""
    return inputs if base is None else [x - base for x in inputs]


def _nuslerp(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    """Along the great circle, at t = w₂/(w₁+w₂); halfway where the weights add up to nearly 0.

    On the flattened tensor, or on each vector along the last axis, or (``nuslerp_row_wise``) along the
    first. Parallel and opposite vectors are joined by the straight line; a zero vector is at right
    angles to everything. With a base, on the differences from it.
    """
    weights = values.numbers("weight")
    both = sum(weights)
    t = 0.5 if abs(both) < 1e-6 else weights[1] / both
    a, b = differences(inputs, base)
    if values.switch("nuslerp_flatten") or a.ndim < 2:
        made = weighted_sum((a, b), _arc(t, inner(a, a), inner(b, b), inner(a, b)))
    else:
        axis = 0 if values.switch("nuslerp_row_wise") else -1
        u, v = _arcs(t, a, b, axis)
        made = (a * u).add_(b * v)
    return made if base is None else made.add_(base)


def _arc(t: float, aa: float, bb: float, ab: float) -> tuple[float, float]:
    lengths = math.sqrt(aa) * math.sqrt(bb)
    cosine = max(-1.0, min(1.0, ab / lengths)) if lengths > 0.0 else 0.0
    if abs(cosine) >= PARALLEL:
        return 1.0 - t, t
    angle = math.acos(cosine)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def _arcs(t: float, a: Tensor, b: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    # _arc for all vectors along an axis at once.
    def product(x: Tensor, y: Tensor) -> Tensor:
        return (x * y).sum(dim=axis, keepdim=True, dtype=torch.float64)

    lengths = product(a, a).sqrt() * product(b, b).sqrt()
    cosine = torch.where(lengths > 0.0, product(a, b) / lengths, 0.0).clamp_(-1.0, 1.0)
    straight = cosine.abs() >= PARALLEL
    angle = torch.where(straight, 0.5 * math.pi, cosine.acos())
    u = torch.where(straight, 1.0 - t, ((1.0 - t) * angle).sin() / angle.sin())
    v = torch.where(straight, t, (t * angle).sin() / angle.sin())
    return u.float(), v.float()


def _multislerp(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    """The weighted mean direction, as long as the inputs are in the weighted mean.

    mergekit projects the unit vectors onto the tangent plane at their weighted mean, adds them up there
    and maps the sum back; but in the plane at their own mean they add up to 0, so what is left is the
    mean itself, times cos(``eps``). A single input is given back. Where the directions cancel out (‖mean‖ < ``eps``) the
    result is the plain weighted sum; weights that add up to 0 are not normalised (mergekit: NaN).
    """
    if len(inputs) == 1:
        return inputs[0].clone()
    weights = values.numbers("weight")
    if values.switch("normalize_weights"):
        by = divisor(weights)
        weights = tuple(w / by for w in weights)
    vectors, eps = differences(inputs, base), values.number("eps")
    norms = [math.sqrt(inner(v, v)) for v in vectors]
    units = [0.0 if n == 0.0 else w / (n + eps) for w, n in zip(weights, norms, strict=True)]
    made = weighted_sum(vectors, units)
    length = math.sqrt(inner(made, made))
    if length <= eps:
        made = weighted_sum(vectors, weights)
    else:
        mean = sum(w * n for w, n in zip(weights, norms, strict=True))
        made *= math.cos(eps) * mean / length
    return made if base is None else made.add_(base)


def _karcher(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    """The point of the sphere with the least sum of squared angles to the inputs, times their mean length.

    At most ``max_iter`` steps, until one is shorter than ``tol``; inputs no longer than ``tol`` count
    for the mean length alone. The start is the mean direction, or the first input where the directions
    cancel out; an input opposite to the mean has no direction to pull in, and pulls in none.
    """
    if len(inputs) == 1:
        return inputs[0].clone()
    tol, steps = values.number("tol"), int(values.number("max_iter"))
    gram = [[0.0] * len(inputs) for _ in inputs]
    for i, x in enumerate(inputs):
        for j, y in enumerate(inputs[: i + 1]):
            gram[i][j] = gram[j][i] = inner(x, y)
    lengths = [math.sqrt(gram[i][i]) for i in range(len(inputs))]
    used = [i for i, n in enumerate(lengths) if n > tol and n > 0.0]
    if not used:
        return torch.zeros_like(inputs[0])
    cosines = torch.tensor(
        [[gram[i][j] / (lengths[i] * lengths[j]) for j in used] for i in used], dtype=torch.float64
    )
    mean = _mean_direction(cosines, steps, tol) * (sum(lengths) / len(lengths))
    return weighted_sum(
        [inputs[i] for i in used],
        [m / lengths[i] for m, i in zip(mean.tolist(), used, strict=True)],
    )


def _mean_direction(cosines: Tensor, steps: int, tol: float) -> Tensor:
    """The mean of unit vectors with these ``cosines`` (n, n) as their coefficients in it (n,)."""
    tol = max(tol, 1e-7)  # angles below that are lost in the rounding of a cosine

    def length(coefficients: Tensor) -> float:
        return math.sqrt(max(0.0, float(coefficients @ cosines @ coefficients)))

    count = len(cosines)
    mean = torch.full((count,), 1.0 / count, dtype=torch.float64)
    size = length(mean)
    if size < tol:
        mean, size = torch.zeros_like(mean), 1.0
        mean[0] = 1.0
    mean /= size
    for _ in range(steps):
        step = torch.zeros_like(mean)
        for i, cosine in enumerate((cosines @ mean).clamp(-1.0, 1.0).tolist()):
            angle = math.acos(cosine)
            if tol <= angle <= math.pi - tol:
                pull = angle / math.sin(angle) / count
                step -= pull * cosine * mean
                step[i] += pull
        size = length(step)
        if size < tol:
            break
        mean = math.cos(size) * mean + (math.sin(size) / size) * step
        mean /= length(mean)
    return mean


NUSLERP = MergeMethod(
    "nuslerp",
    _nuslerp,
    (WEIGHT, Parameter("nuslerp_flatten", True), Parameter("nuslerp_row_wise", False)),
    base="optional",
    inputs=(2, 2),
    source="mergekit 0.1.5, nuslerp; Shoemake 1985",
)
MULTISLERP = MergeMethod(
    "multislerp",
    _multislerp,
    (
        WEIGHT,
        Parameter("normalize_weights", True),
        Parameter("eps", 1e-8, valid=(0.0, math.inf)),
    ),
    base="optional",
    inputs=(1, None),
    source="mergekit 0.1.5, multislerp; Goddard, https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
)
KARCHER = MergeMethod(
    "karcher",
    _karcher,
    (
        Parameter("max_iter", 10.0, valid=(0.0, math.inf), integer=True),
        Parameter("tol", 1e-5, valid=(0.0, math.inf)),
    ),
    base="none",
    inputs=(1, None),
    source="Karcher 1977; mergekit 0.1.5, karcher; arXiv 2603.04972",
)
