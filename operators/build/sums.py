"""Many weighted sums of the same vectors in one pass over them.

Every block of a source is read and widened to float32 once, whatever the number of sums, and stays in
the processor's cache for all of them. Each sum adds its terms in its own order, element by element, and
is cast once: neither the other sums, nor the blocks, nor the threads show in the result.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.merge.blocks import BLOCK
from operators.merge.linear import add_up

SPAN = 1 << 20  # elements for one thread at a time
COMPILED_FROM = (
    1 << 18
)  # elements of a tensor: for smaller models numba would not pay for its start
_DEVICE_BLOCK = 1 << 24  # elements; on a GPU launches cost more than cache misses
_KINDS = {torch.float32: 0, torch.bfloat16: 1}


@dataclass(frozen=True, slots=True, eq=False)
class Sum:
    """Σ weight·source into ``out``, a vector of any floating-point dtype, in the order of ``terms``.

    A term is the number of a source, and its weight.
    """

    out: Tensor
    terms: tuple[tuple[int, float], ...]


def spans(elements: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the pieces of a vector that threads share out among them."""
    return ((start, min(start + SPAN, elements)) for start in range(0, elements, SPAN))


def sum_up(sources: Sequence[Tensor], sums: Sequence[Sum], start: int, stop: int) -> None:
    """Elements [start, stop) of all ``sums`` of ``sources``, vectors of any floating-point dtype.

    They are made where the first source is. To outputs on another device they go from pinned memory,
    while the next span is being made.
    """
    if not sums or start == stop:
        return
    home = sources[0].device if sources else torch.device("cpu")
    away = [s for s in sums if home.type == "cpu" and s.out.device != home]
    if away:
        sum_streamed(sources, away, start, stop)
        sums = [s for s in sums if s not in away]
    if sums and not sum_by_kernel(sources, sums, start, stop):
        sum_by_torch(sources, sums, start, stop)


def sum_streamed(sources: Sequence[Tensor], sums: Sequence[Sum], start: int, stop: int) -> None:
    """From host memory to a GPU: torch keeps pinned memory until what was sent from it has arrived."""
    pinned = any(s.out.device.type == "cuda" for s in sums)
    made = [torch.empty(stop - start, dtype=s.out.dtype, pin_memory=pinned) for s in sums]
    here = [Sum(out, each.terms) for out, each in zip(made, sums, strict=True)]
    sum_up([vector[start:stop] for vector in sources], here, 0, stop - start)
    for out, each in zip(made, sums, strict=True):
        each.out[start:stop].copy_(out, non_blocking=True)


def sum_by_torch(sources: Sequence[Tensor], sums: Sequence[Sum], start: int, stop: int) -> None:
    device = sources[0].device
    size = min(BLOCK if device.type == "cpu" else _DEVICE_BLOCK, stop - start)
    wide = torch.empty(len(sources), size, device=device)
    made, scratch = torch.empty(2, size, device=device)
    for at in range(start, stop, size):
        end = min(at + size, stop)
        count = end - at
        here = [
            piece if piece.dtype == torch.float32 and piece.device == device else w.copy_(piece)
            for w, piece in zip(wide[:, :count], (s[at:end] for s in sources), strict=True)
        ]
        for each in sums:
            parts = [here[number] for number, _ in each.terms]
            add_up(made[:count], parts, [w for _, w in each.terms], scratch[:count])
            each.out[at:end].copy_(made[:count])


def kernel_problem() -> str:
    """Why the compiled kernels are unavailable; "" if they are available, or were not needed so far.

    torch then computes the same sums with the same bits, more slowly. Hosts ask after a build, and report
    a reason as a ``degraded`` event. Starts no compiler.
    """
    return _kernels()[1] if _kernels.cache_info().currsize else ""


@cache
def _kernels() -> tuple[ModuleType | None, str]:
    """:mod:`operators.build.kernels`, compiled, or None and the reason."""
    try:
        from operators.build import kernels

        kernels.compile_once()
    except ModuleNotFoundError as error:
        return None, f"{error.name} is not installed; weighted sums use torch"
    # numba and LLVM raise errors of many types: an unknown processor, a cache folder without space.
    except Exception as error:
        reason = f"numba can't compile the kernels ({type(error).__name__}: {error})"
        return None, f"{reason}; weighted sums use torch"
    return kernels, ""


def sum_by_kernel(sources: Sequence[Tensor], sums: Sequence[Sum], start: int, stop: int) -> bool:
    """False where the sums are not for the compiled kernel, and where its bits are not torch's."""
    tensors = [*sources, *(s.out for s in sums)]
    if sources[0].numel() < COMPILED_FROM or not all(map(_fits, tensors)):
        return False
    compiled, _ = _kernels()
    if compiled is None:
        return False
    flat = [term for each in sums for term in each.terms]
    outs = [s.out for s in sums]
    nan = compiled.weighted_sums(
        start,
        stop,
        _addresses(sources),
        _kinds(sources),
        np.cumsum([0, *(len(s.terms) for s in sums)], dtype=np.int64),
        np.array([number for number, _ in flat], dtype=np.int64),
        np.array([weight for _, weight in flat], dtype=np.float64).astype(np.float32),
        _addresses(outs),
        _kinds(outs),
        np.zeros(len(flat), dtype=np.uintp),
        np.zeros((2 + len(sources)) * compiled.CHUNK, dtype=np.float32),
    )
    return not nan


def _fits(tensor: Tensor) -> bool:
    return tensor.dtype in _KINDS and tensor.device.type == "cpu" and tensor.is_contiguous()


def _addresses(tensors: Sequence[Tensor]) -> NDArray[np.uintp]:
    return np.array([t.data_ptr() for t in tensors], dtype=np.uintp)


def _kinds(tensors: Sequence[Tensor]) -> NDArray[np.int64]:
    return np.array([_KINDS[t.dtype] for t in tensors], dtype=np.int64)
