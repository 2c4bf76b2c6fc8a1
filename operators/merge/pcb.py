"""``pcb``: parameters compete within their own model and between models, over whole models at once."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from operators.merge.blocks import spans
from operators.merge.linear import SCALE, WEIGHT, required
from operators.merge.order import order_statistics
from operators.merge.table import MergeMethod, Parameter, Values


def balance(
    inputs: Sequence[Tensor], base: Tensor, *, ratio: float, winsor: float, inter: str
) -> tuple[Tensor, list[tuple[float, float]]]:
    """Each entry's standing s in its model, in [0, 1], and the winsorised range of |τ|.

    ``inputs`` and ``base`` have shape (elements,); s has shape (models, elements) and their dtype. With
    d elements, τ = input − base and sorted order statistics x₍₀₎ ≤ ... ≤ x₍d−1₎ of each model:

    - |τ| is cut to [x₍⌊d·winsor⌋₎, x₍⌊d(1−winsor)−1⌋₎]; u is that range brought to [0, 1], v = sgn(τ)·u;
    - intra = exp(n(u² − 1)), which is the published exp(n·u²) but for a factor that min-max takes away,
      and does not overflow with many models;
    - inter = Σⱼ tanh(vᵢvⱼ) (``pair``), tanh(τᵢ·Στⱼ) (``sum``, the published code, τ not winsorised), or
      tanh(τᵢ·Σvⱼ) (``normsum``); j runs over all models, i too;
    - β = intra·inter is cut from below at β₍⌊d(1−ratio)⌋₎ and brought to [0, 1]: the entry at the
      threshold itself gets 0, so d − ⌊d(1−ratio)⌋ − 1 entries of a model are above 0.

    A range of one point has no order: 0/0 is 0 there. A ``ratio`` of 1 drops nothing: then s is
    1e-6 at least, so that entries which stand last in all models are averaged.
    """
    count, size = len(inputs), base.numel()
    ranges = []
    for x in inputs:
        low = min(int(size * winsor), size - 1)
        places = (low, max(low, int(size * (1.0 - winsor) - 1)))
        first, last = order_statistics((x - base).abs_(), places)
        ranges.append((first, last))
    standing = torch.empty((count, size), dtype=base.dtype, device=base.device)
    for at in _blocks(size):
        tau = [x[at] - base[at] for x in inputs]
        u = [_min_max(t.abs(), low, high) for t, (low, high) in zip(tau, ranges, strict=True)]
        for i, score in enumerate(_inter(tau, u, inter)):
            intra = u[i].square().sub_(1.0).mul_(count).exp_()
            standing[i, at] = intra.mul_(score)
    for row in standing:
        places = (min(int(size * (1.0 - ratio)), size - 1), size - 1)
        low_standing, top = order_statistics(row, places)
        for at in _blocks(size):
            row[at] = _min_max(row[at], low_standing, top)
    if ratio >= 1.0:
        standing.clamp_(min=1e-6)
    return standing, ranges


def competed(
    inputs: Sequence[Tensor],
    base: Tensor,
    weights: Sequence[float],
    scale: float,
    *,
    ratio: float,
    winsor: float,
    inter: str,
) -> Tensor:
    """θ_b + λ·Σ wᵢsᵢτᵢ / Σ sᵢ with winsorised τ, shape (elements,); 0/0 is 0."""
    standing, ranges = balance(inputs, base, ratio=ratio, winsor=winsor, inter=inter)
    merged = torch.empty_like(base)
    for at in _blocks(base.numel()):
        task, share = torch.zeros_like(base[at]), torch.zeros_like(base[at])
        for i, x in enumerate(inputs):
            tau, s = x[at] - base[at], standing[i, at]
            task += tau.sign() * tau.abs().clamp_(*ranges[i]) * s * weights[i]
            share += s
        merged[at] = task.div_(share.clamp_(min=1e-12)).mul_(scale).add_(base[at])
    return merged


def _inter(tau: list[Tensor], u: list[Tensor], inter: str) -> Iterator[Tensor]:
    if inter == "sum":
        total = sum(tau[1:], start=tau[0])
        yield from ((t * total).tanh_() for t in tau)
        return
    v = [t.sign().mul_(size) for t, size in zip(tau, u, strict=True)]
    if inter == "normsum":
        total = sum(v[1:], start=v[0])
        yield from ((t * total).tanh_() for t in tau)
        return
    scores = [torch.zeros_like(x) for x in v]
    for i, x in enumerate(v):
        for j in range(i, len(v)):
            together = (x * v[j]).tanh_()
            scores[i] += together
            if j > i:
                scores[j] += together
    yield from scores


def _min_max(values: Tensor, low: float, high: float) -> Tensor:
    """``values`` cut to [low, high] and brought to [0, 1]; all 0 if that is one point."""
    if not high > low:
        return torch.zeros_like(values)
    return values.clamp(low, high).sub_(low).div_(high - low)


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, stop) for start, stop in spans(size))


def _pcb(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    """Neutral: ``ratio`` 1, ``winsor`` 0, ``weight`` 1 and ``lambda`` 1."""
    origin = required(base)
    return competed(
        [x.reshape(-1) for x in inputs],
        origin.reshape(-1),
        values.numbers("weight"),
        values.number("lambda"),
        ratio=values.number("ratio"),
        winsor=values.number("winsor"),
        inter=values.word("inter"),
    ).view_as(origin)


PCB = MergeMethod(
    "pcb",
    _pcb,
    (
        WEIGHT,
        SCALE,
        Parameter("ratio", 0.1, valid=(0.0, 1.0), search=(0.02, 0.5)),
        Parameter("winsor", 0.0001, valid=(0.0, 0.4)),
        Parameter("inter", "pair", choices=("pair", "sum", "normsum")),
    ),
    base="required",
    inputs=(1, None),
    source="Du et al. 2024, arXiv 2410.02396",
    scope="model",
)
