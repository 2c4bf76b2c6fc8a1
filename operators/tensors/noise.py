"""Seeded random numbers that depend on (seed, name) alone: never on device, worker, order or shard.

Built on Philox's raw 64-bit output, which is a fixed algorithm, and on our own transforms of it:
numpy reserves the right to change its normal and uniform streams between releases, and then no
individual could be rebuilt.
"""

import hashlib
from collections.abc import Iterator
from math import prod, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BLOCK = 1 << 16  # elements made at once: bounds the memory of the float64 intermediates


def _bits(seed: int, name: str, purpose: str) -> np.random.Philox:
    key = hashlib.sha256(f"{seed}/{purpose}/{name}".encode()).digest()[:16]
    return np.random.Philox(key=np.frombuffer(key, dtype="<u8"))


def normal(seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
    """N(0, 1) float32 of ``shape``, by Box-Muller on 32-bit uniforms."""
    elements = prod(shape)
    out = np.empty(elements, dtype=np.float32)
    bits = _bits(seed, name, "normal")
    for start in range(0, elements, _BLOCK):
        stop = min(start + _BLOCK, elements)
        out[start:stop] = _box_muller(bits.random_raw(-(-(stop - start) // 2)))[: stop - start]
    return torch.from_numpy(out).view(shape)


def _box_muller(raw: NDArray[np.uint64]) -> NDArray[np.float32]:
    # The high half is shifted by one so that the logarithm never meets 0.
    radius = np.sqrt(-2.0 * np.log(((raw >> np.uint64(32)).astype(np.float64) + 1.0) * 2.0**-32))
    angle = (raw & np.uint64(0xFFFFFFFF)).astype(np.float64) * (2.0 * np.pi * 2.0**-32)
    pair = np.empty((len(raw), 2), dtype=np.float32)
    pair[:, 0] = radius * np.cos(angle)
    pair[:, 1] = radius * np.sin(angle)
    return pair.reshape(-1)


def bernoulli(seed: int, name: str, shape: tuple[int, ...], rate: float) -> Tensor:
    """Boolean mask of ``shape``, each entry True with probability ``rate`` (to within 2**-32)."""
    keep = np.empty(prod(shape), dtype=np.bool_)
    for start, drawn in _bernoulli_blocks(seed, name, len(keep), rate):
        keep[start : start + len(drawn)] = drawn
    return torch.from_numpy(keep).view(shape)


def bernoulli_bits(seed: int, name: str, elements: int, rate: float) -> NDArray[np.uint8]:
    """The mask of :func:`bernoulli` as a vector of bits, eight to a byte, the first the highest."""
    packed = np.empty(-(-elements // 8), dtype=np.uint8)
    for start, drawn in _bernoulli_blocks(seed, name, elements, rate):
        bits = np.packbits(drawn)
        packed[start // 8 : start // 8 + len(bits)] = bits
    return packed


def _bernoulli_blocks(
    seed: int, name: str, elements: int, rate: float
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    bits, limit = _bits(seed, name, "mask"), round(rate * 2.0**32)
    for start in range(0, elements, _BLOCK):
        count = min(_BLOCK, elements - start)
        if limit >= 2**32:
            yield start, np.ones(count, dtype=np.bool_)
        else:
            raw = bits.random_raw(-(-count // 2)).astype("<u8", copy=False)
            yield start, raw.view("<u4")[:count] < np.uint32(limit)


def bernoulli_each(seed: int, name: str, rates: Tensor) -> Tensor:
    """Boolean mask, each entry True with its own probability in ``rates``; on the device of ``rates``.

    Draws as :func:`bernoulli` does: where all rates are equal, the two give one mask.
    """
    chances = rates.reshape(-1).cpu().numpy()
    keep = np.empty(len(chances), dtype=np.bool_)
    bits = _bits(seed, name, "mask")
    for start in range(0, len(chances), _BLOCK):
        limit = np.rint(chances[start : start + _BLOCK].astype(np.float64) * 2.0**32)
        raw = bits.random_raw(-(-len(limit) // 2))
        keep[start : start + _BLOCK] = (
            raw.astype("<u8", copy=False).view("<u4")[: len(limit)] < limit
        )
    return torch.from_numpy(keep).view(rates.shape).to(rates.device)


def direction(seed: int, name: str, shape: tuple[int, ...], rate: float, rank: int) -> Tensor:
    """One tensor of a :class:`~operators.recipe.Noise`, float32.

    With ``rank > 0``, tensors of two or more axes get A·Bᵀ/√rank over (first axis, the rest); vectors
    get full-rank noise. Source: EGGROLL, arXiv 2511.16652.
    """
    if rank and len(shape) > 1:
        rows, columns = shape[0], prod(shape[1:])
        a = normal(seed, f"{name}/A", (rows, rank))
        b = normal(seed, f"{name}/B", (columns, rank))
        total = torch.zeros(rows, columns)
        for k in range(rank):  # element by element: a matrix product's sums depend on its blocking
            total += a[:, k : k + 1] * b[:, k]
        return (total / sqrt(rank)).view(shape)
    noise = normal(seed, name, shape)
    if rate < 1.0:
        noise *= bernoulli(seed, name, shape, rate)
    return noise
