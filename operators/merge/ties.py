"""``ties`` and ``dare_ties``: thin out each task vector, elect a sign, keep what agrees with it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.merge.blocks import Delta, difference, flat, spans, total, whole
from operators.merge.darex import Q_EXPONENT, RESCALE, global_q
from operators.merge.linear import SCALE, WEIGHT, required
from operators.merge.table import Blocks, Blockwise, MergeMethod, Parameter, Values
from operators.tensors.noise import bernoulli_bits

# A block of a task vector and where it starts -> the block thinned out, in place.
Thin: TypeAlias = Callable[[Tensor, int], Tensor]


def keep_largest(delta: Tensor, density: float) -> Tensor:
    """``delta`` with all but its ``max(1, ⌊density·n⌋)`` largest magnitudes set to 0.

    Among equal magnitudes at the threshold the earlier elements are kept, so the count is exact.
    """
    if density >= 1.0 or delta.numel() <= 1:
        return delta
    return _thinned(delta, _largest(_blocks_of(delta), delta.numel(), density))


def drop_and_rescale(
    delta: Tensor, density: float, rescale: str, seed: int, name: str, exponent: float = 1.0
) -> Tensor:
    """Keep each element with probability ``density`` and rescale what is left.

    ``rescale`` as in :func:`_rescaled`.
    """
    if density >= 1.0:
        return delta
    blocks, size = _blocks_of(delta), delta.numel()
    keep = _Random(bernoulli_bits(seed, name, size, density))
    return _thinned(delta, _rescaled(keep, blocks, size, density, rescale, exponent))


def _blocks_of(delta: Tensor) -> Delta:
    vector = delta.reshape(-1)
    return lambda start, stop: vector[start:stop]


def _thinned(delta: Tensor, thin: Thin) -> Tensor:
    made = delta.clone(memory_format=torch.contiguous_format)
    vector = made.view(-1)
    for start, stop in spans(made.numel()):
        thin(vector[start:stop], start)
    return made


def elect_and_merge(
    deltas: Sequence[Tensor], weights: Sequence[float], *, normalize: bool
) -> Tensor:
    """Sum the weighted deltas whose sign is the sign of Σ wᵢδᵢ (0 counts as +).

    With ``normalize``, divide each element by the weights that took part there (0 counts as 1): two
    equal models then give the model, not half of it.
    """
    merged = torch.empty_like(deltas[0], memory_format=torch.contiguous_format)
    out, vectors = merged.view(-1), flat(deltas)
    for start, stop in spans(out.numel()):
        parts = [v[start:stop].clone() for v in vectors]
        out[start:stop] = _elect(parts, weights, normalize=normalize)
    return merged


def _elect(parts: Sequence[Tensor], weights: Sequence[float], *, normalize: bool) -> Tensor:
    """:func:`elect_and_merge` of one block, whose parts are overwritten.

    Masks are numbers, 0 and 1: choosing by a mask of booleans takes several times as long.
    """
    sign = torch.zeros_like(parts[0])
    for part, weight in zip(parts, weights, strict=True):
        sign.add_(part.mul_(weight))
    sign.ge_(0.0).mul_(2.0).sub_(1.0)
    merged, share = torch.zeros_like(sign), torch.zeros_like(sign)
    for part, weight in zip(parts, weights, strict=True):
        agreeing = part.mul_(sign).clamp_min_(0.0)
        merged.add_(agreeing)
        if normalize:
            share.add_(agreeing.gt_(0.0).mul_(weight))
    merged.mul_(sign)
    return merged.div_(share.add_(share.abs().lt_(1e-8))) if normalize else merged


@dataclass(frozen=True, slots=True)
class _Largest:
    """Keeps what is above ``threshold``, and what is equal to it before element ``tied_until``."""

    threshold: float
    tied_until: int

    def __call__(self, delta: Tensor, start: int) -> Tensor:
        keep = delta.abs()
        tied = min(max(0, self.tied_until - start), keep.numel())
        keep[:tied].ge_(self.threshold)
        keep[tied:].gt_(self.threshold)
        return delta.mul_(keep)


def _largest(delta: Delta, elements: int, density: float) -> _Largest:
    if density >= 1.0 or elements <= 1:
        return _Largest(-1.0, 0)
    # Floats that are not negative are in the order of their bits, and integers partition faster.
    bits = np.empty(elements, dtype=np.int32)
    for start, stop in spans(elements):
        bits[start:stop] = _magnitude_bits(delta(start, stop))
    place = elements - max(1, math.floor(density * elements))
    bits.partition(place)
    threshold = bits[place]
    tied = int(np.count_nonzero(bits[place:] == threshold))  # so many of those equal to it are kept
    if place and bits[:place].max() == threshold:
        until = _place_of(delta, elements, threshold, tied)
    else:
        until = elements
    return _Largest(float(threshold.view(np.float32)), until)


def _place_of(delta: Delta, elements: int, threshold: np.int32, tied: int) -> int:
    """One past the ``tied``-th element whose magnitude is the threshold."""
    for start, stop in spans(elements):
        here = np.flatnonzero(_magnitude_bits(delta(start, stop)) == threshold)
        if len(here) >= tied:
            return start + int(here[tied - 1]) + 1
        tied -= len(here)
    return elements


def _magnitude_bits(delta: Tensor) -> NDArray[np.int32]:
    made: NDArray[np.int32] = delta.abs().cpu().numpy().view(np.int32)
    return made


@dataclass(frozen=True, slots=True)
class _Random:
    """Keeps the elements whose bit is set."""

    bits: NDArray[np.uint8]

    def __call__(self, delta: Tensor, start: int) -> Tensor:
        begin, count = start // 8, delta.numel()
        mask = np.unpackbits(self.bits[begin : begin + -(-count // 8)], count=count)
        return delta.mul_(torch.from_numpy(mask).to(delta.device, torch.float32))


def _rescaled(
    keep: Thin, delta: Delta, elements: int, density: float, rescale: str, exponent: float = 1.0
) -> Thin:
    """``keep``, then the change of size that ``rescale`` names.

    ``l1`` keeps Σ|δ| (what mergekit does), ``inverse_density`` divides by the density (the DARE paper),
    ``darex`` by density^``exponent`` (:mod:`operators.merge.darex`), ``none`` leaves the size as it is.
    """
    if rescale == "inverse_density" and density > 0.0:
        return lambda block, start: keep(block, start).div_(density)
    if rescale == "darex" and density > 0.0:
        return lambda block, start: keep(block, start).div_(global_q(density, exponent))
    if rescale != "l1":
        return keep
    sums = [(0.0, 0.0)]
    for start, stop in spans(elements):
        magnitude = delta(start, stop).abs()
        sums.append((total(magnitude), total(keep(magnitude, start))))
    before, left = (math.fsum(s) for s in zip(*sums, strict=True))
    if left <= 0.0 or left == before:
        return keep
    return lambda block, start: keep(block, start).mul_(before / left)


def _elected(thinner: Callable[[Delta, int, Values, int, int, str], Thin]) -> Blockwise:
    def form(
        inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
    ) -> Blocks:
        origin, *vectors = flat([required(base), *inputs])
        weights, normalize = values.numbers("weight"), values.switch("normalize")
        thin = [
            thinner(difference(v, origin), v.numel(), values, i, seed, f"{name}/{i}")
            for i, v in enumerate(vectors)
        ]

        def blocks(start: int, stop: int) -> Tensor:
            here = origin[start:stop].float()
            parts = [
                t(v[start:stop].float() - here, start) for t, v in zip(thin, vectors, strict=True)
            ]
            merged = _elect(parts, weights, normalize=normalize)
            return merged.mul_(values.number("lambda")).add_(here)

        return blocks

    return form


def _trim(delta: Delta, elements: int, values: Values, index: int, seed: int, name: str) -> Thin:
    density = values.numbers("density")[index]
    keep = _largest(delta, elements, density)
    if density >= 1.0 or elements <= 1:
        return keep
    return _rescaled(keep, delta, elements, density, values.word("rescale"))


def _drop(delta: Delta, elements: int, values: Values, index: int, seed: int, name: str) -> Thin:
    density = values.numbers("density")[index]
    if density >= 1.0:
        return lambda block, start: block
    keep = _Random(bernoulli_bits(seed, name, elements, density))
    rescale, exponent = values.word("rescale"), values.number("q_exponent")
    return _rescaled(keep, delta, elements, density, rescale, exponent)


_ties, _dare_ties = _elected(_trim), _elected(_drop)

DENSITY = Parameter("density", 1.0, valid=(0.0, math.inf), search=(0.05, 1.0), per_input=True)

TIES = MergeMethod(
    "ties",
    whole(_ties),
    (
        WEIGHT,
        DENSITY,
        SCALE,
        Parameter("normalize", True),
        Parameter("rescale", "none", choices=("l1", "inverse_density", "none")),
    ),
    base="required",
    inputs=(1, None),
    source="Yadav et al. 2023, arXiv 2306.01708",
    blocks=_ties,
)
DARE_TIES = MergeMethod(
    "dare_ties",
    whole(_dare_ties),
    (
        WEIGHT,
        DENSITY,
        SCALE,
        Parameter("normalize", False),
        RESCALE,
        Q_EXPONENT,
    ),
    base="required",
    inputs=(1, None),
    source="Yu et al. 2024, arXiv 2311.03099; darex: Deng et al. 2024, arXiv 2410.09344",
    seeded=True,
    blocks=_dare_ties,
)
