"""Merges in blocks: what a method must know of whole tensors first, then the result piece by piece.

A block's intermediates stay in the processor's cache, which makes merging several times faster than
tensor by tensor; and inputs may be memory-mapped files in half precision, of which no whole float32 copy
is ever made. Every element is computed alone, so the size of the blocks does not show in the result.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from operators.merge.table import Blocks, Blockwise, Function, Values

BLOCK = 1 << 16  # elements: some float32 temporaries of this size fit a core's second-level cache
# torch shares out larger pieces among its threads, which then wait for each other within ours.
_ALONE = 1 << 15
_ROW = 1 << 7

Delta: TypeAlias = Callable[[int, int], Tensor]


def spans(elements: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the blocks of a tensor of so many elements."""
    return ((start, min(start + BLOCK, elements)) for start in range(0, elements, BLOCK))


def flat(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors as vectors; views, if they are contiguous."""
    return [t.reshape(-1) for t in tensors]


def difference(x: Tensor, base: Tensor) -> Delta:
    """x − base in float32, by block, of two vectors of any floating-point dtype."""
    return lambda start, stop: x[start:stop].float() - base[start:stop].float()


def total(values: Tensor) -> float:
    """Σ of one block, the same whatever the number of threads.

    Short rows are summed in the block's own dtype, each by one thread, and their sums in float64; a long
    vector torch would cut into as many pieces as it has threads.
    """
    rows = values.numel() // _ROW * _ROW
    sums = values[:rows].view(-1, _ROW).sum(dim=1).sum(dtype=torch.float64)
    return float(sums) + float(values[rows:].sum(dtype=torch.float64))


def whole(form: Blockwise) -> Function:
    """A method in blocks as a function of whole tensors."""

    def function(
        inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
    ) -> Tensor:
        merged = torch.empty_like(inputs[0], dtype=torch.float32).contiguous()
        write(form(inputs, base, values, seed, name), merged.view(-1))
        return merged

    return function


def write(blocks: Blocks, out: Tensor) -> None:
    """Fill the vector ``out``, in pieces that one thread takes."""
    for start in range(0, out.numel(), _ALONE):
        stop = min(start + _ALONE, out.numel())
        out[start:stop] = blocks(start, stop)
