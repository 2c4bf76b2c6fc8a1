"""Many weighted sums of the same vectors in one pass over them.

Every block of a source is read and widened to float32 once, whatever the number of sums, and stays in
the processor's cache for all of them. Each sum adds its terms in its own order, element by element, and
is cast once: neither the other sums, nor the blocks, nor the threads show in the result.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from operators import native
from operators.merge.blocks import BLOCK
from operators.merge.linear import add_up

SPAN = 1 << 20  # elements for one thread at a time
_NATIVE_FROM = 1 << 16  # elements; for less, and so for small models, no compiler is started
_DEVICE_BLOCK = 1 << 24  # elements; on a GPU launches cost more than cache misses


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

    They are made where the first source is, and go from there to the outputs' device.
    """
    if not sums:
        return
    outs = [s.out for s in sums]
    if stop - start >= _NATIVE_FROM and native.takes([*sources, *outs]):
        kernel = native.library()
        terms = [s.terms for s in sums]
        if kernel and native.weighted_sums(kernel, sources, outs, terms, start, stop):
            return
    _by_torch(sources, sums, start, stop)


def _by_torch(sources: Sequence[Tensor], sums: Sequence[Sum], start: int, stop: int) -> None:
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
