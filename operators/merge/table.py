"""What a merge method is: a function of one tensor's inputs, and its parameters."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from operators.tensors.low_rank import Factors

Number: TypeAlias = float | bool | str


@dataclass(frozen=True, slots=True)
class Values:
    """Parameters as they hold for one tensor: numbers per input, or one number, switch or word."""

    of: Mapping[str, Number | tuple[float, ...]]

    def numbers(self, name: str) -> tuple[float, ...]:
        """A per-input parameter: one number for each input."""
        value = self.of[name]
        if not isinstance(value, tuple):
            raise TypeError(f"{name} is not a per-input parameter")
        return value

    def number(self, name: str) -> float:
        return float(self.of[name])  # type: ignore[arg-type]

    def switch(self, name: str) -> bool:
        return bool(self.of[name])

    def word(self, name: str) -> str:
        return str(self.of[name])


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its default, the values that are valid, and the range that a search explores.

    ``valid`` is an inclusive range of numbers for which the method has a meaning, and at least what
    mergekit accepts; None means any finite number. ``search`` is where good values are expected; a
    parameter without it is not searched. ``per_input`` parameters take one number for all inputs, or one
    for each. ``choices`` are the valid words. An ``integer`` is a whole number, and a search moves it by
    whole steps.
    """

    name: str
    default: Number
    valid: tuple[float, float] | None = None
    search: tuple[float, float] | None = None
    per_input: bool = False
    choices: tuple[str, ...] = ()
    integer: bool = False


Function: TypeAlias = Callable[[Sequence[Tensor], Tensor | None, Values, int, str], Tensor]
# Elements [start, stop) of the merged tensor as a vector, float32: no more than operators.merge.blocks.BLOCK,
# from a multiple of eight, in any order and by any thread.
Blocks: TypeAlias = Callable[[int, int], Tensor]
Blockwise: TypeAlias = Callable[[Sequence[Tensor], Tensor | None, Values, int, str], Blocks]
FactorsFunction: TypeAlias = Callable[[Sequence[Factors], Values, int, str], Factors]


@dataclass(frozen=True, slots=True)
class MergeMethod:
    """An entry of MERGES.

    ``function(inputs, base, values, seed, name)`` merges one tensor: float32 inputs of one shape, the
    base's tensor or None, the parameters that hold for this tensor, and (seed, tensor name) for the
    methods that draw. It gives float32 of that shape and leaves its inputs alone.

    A method of ``scope`` "model" gets all tensors of a model, flattened and joined in order of name, as
    one tensor, and its parameters can't differ by layer or tensor.

    ``factors(inputs, values, seed, name)`` is what the method does to changes of the base that are kept
    as factors (LoRA adapters), where that is cheaper or different; it gives the change of the base.
    ``adapters_only`` methods have no meaning for whole tensors.

    ``blocks`` is ``function`` block by block, for inputs of any floating-point dtype: the same bits
    without a float32 copy of any whole input. See :mod:`operators.merge.blocks`.

    ``base``: whether a base model is "required", "optional" (the method then works on differences from
    it) or not used: "none". ``inputs`` is the least and the greatest number of inputs (None: any).
    """

    name: str
    function: Function
    parameters: tuple[Parameter, ...]
    base: Literal["required", "optional", "none"]
    inputs: tuple[int, int | None]
    source: str
    seeded: bool = False
    scope: Literal["tensor", "model"] = "tensor"
    factors: FactorsFunction | None = None
    adapters_only: bool = False
    blocks: Blockwise | None = None

    def parameter(self, name: str) -> Parameter | None:
        return next((p for p in self.parameters if p.name == name), None)
