"""One model's parameters as named tensors, and as one flat buffer with named views.

A founder's tensors are views of memory-mapped files; a child's are views of one flat buffer, which
a host allocates once and fills again for every individual.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import overload

import torch
from torch import Tensor

from operators.errors import EvoError

# Every tensor starts on a cache line. Kernels choose their path by alignment, and the same path
# gives the same last bit whether a model was born alone or after forty others.
ALIGNMENT_BYTES = 64


class WeightsMismatchError(EvoError):
    """Two models' tensors do not fit together; the message names the tensor and both models."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, shape and dtype of one tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def elements(self) -> int:
        return prod(self.shape)

    def describe(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}{list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Layout:
    """What tensors a model has, sorted by name: two models with equal layouts can be merged."""

    specs: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        for a, b in pairwise(self.specs):
            if a.name >= b.name:
                raise ValueError(f"layout: tensor names must be sorted and unique, at {b.name!r}")

    @property
    def elements(self) -> int:
        """Number of parameters."""
        return sum(s.elements for s in self.specs)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(s.name for s in self.specs)

    def __iter__(self) -> Iterator[TensorSpec]:
        return iter(self.specs)


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's tensors by name, with their layout. Not hashable on purpose: identity is a recipe's."""

    layout: Layout
    tensors: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


@dataclass(frozen=True, slots=True)
class Stack:
    """Several individuals of one layout: ``tensors`` by name, each of shape (individuals, *shape)."""

    layout: Layout
    tensors: Mapping[str, Tensor]
    count: int

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, which: int) -> Weights: ...
    @overload
    def __getitem__(self, which: slice) -> "Stack": ...
    def __getitem__(self, which: int | slice) -> "Weights | Stack":
        """One of them, or some that follow each other: views."""
        views = {name: tensor[which] for name, tensor in self.tensors.items()}
        if isinstance(which, slice):
            return Stack(self.layout, views, len(range(*which.indices(self.count))))
        return Weights(self.layout, views)


def layout_of(tensors: Mapping[str, Tensor]) -> Layout:
    """The layout of the floating-point tensors in ``tensors`` (integer buffers are not merged)."""
    return Layout(
        tuple(
            TensorSpec(name, tuple(t.shape), t.dtype)
            for name, t in sorted(tensors.items())
            if t.is_floating_point()
        )
    )


def weights_of(tensors: Mapping[str, Tensor]) -> Weights:
    """``tensors`` as Weights: the floating-point ones, sorted by name; nothing is copied."""
    layout = layout_of(tensors)
    return Weights(layout, {s.name: tensors[s.name] for s in layout})


def allocate(layout: Layout, device: torch.device | str = "cpu") -> Weights:
    """Uninitialised weights of ``layout``: one flat byte buffer, every tensor a view of it."""
    return allocate_stack(layout, 1, device)[0]


def allocate_stack(layout: Layout, count: int, device: torch.device | str = "cpu") -> Stack:
    """Uninitialised weights of ``count`` individuals in one buffer, one individual after the other."""
    offsets, end = [], 0
    for spec in layout:
        offsets.append(end)
        size = spec.elements * spec.dtype.itemsize
        end += -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    buffer = torch.empty((count, end), dtype=torch.uint8, device=device)
    views = {
        spec.name: buffer[:, at : at + spec.elements * spec.dtype.itemsize]
        .view(spec.dtype)
        .view(count, *spec.shape)
        for spec, at in zip(layout, offsets, strict=True)
    }
    return Stack(layout, views, count)


def check_fit(expected: Layout, other: Layout, *, expected_from: str, other_from: str) -> None:
    """Raise unless ``other`` has the tensors of ``expected``, in the same shapes.

    dtypes may differ (a bfloat16 founder of a float32 base): merging happens in float32.

    Raises:
        WeightsMismatchError: names the first tensor that differs, both shapes and both sources.
    """
    mine = {s.name: s for s in expected}
    theirs = {s.name: s for s in other}
    for name in sorted(mine.keys() | theirs.keys()):
        a, b = mine.get(name), theirs.get(name)
        if a is None or b is None:
            has, lacks = (expected_from, other_from) if b is None else (other_from, expected_from)
            raise WeightsMismatchError(
                f"tensor {name!r} is in {has} but not in {lacks}. "
                "Founders must share one architecture, and heads be tied in all or in none."
            )
        if a.shape != b.shape:
            raise WeightsMismatchError(
                f"tensor {name!r} is {a.describe()} in {expected_from} but {b.describe()} in "
                f"{other_from}. Founders must share one architecture and one vocabulary."
            )
