"""What a merge method is: a function of one tensor's inputs, and its parameters with their bounds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

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
    """One parameter: its default, what it may be, and the range that a search explores.

    ``per_input`` parameters take one number for all inputs, or one for each. ``bounds`` are inclusive
    and hard; None means any finite number. ``choices`` are the words that a word may be.
    """

    name: str
    default: Number
    bounds: tuple[float, float] | None = None
    search: tuple[float, float] | None = None
    per_input: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MergeMethod:
    """An entry of MERGES.

    ``function(inputs, base, values, seed, name)`` merges one tensor: float32 inputs of one shape, the
    base's tensor or None, the parameters that hold for this tensor, and (seed, tensor name) for the
    methods that draw. It gives float32 of that shape and leaves its inputs alone. ``inputs`` is the
    least and the greatest number of inputs (None: any).
    """

    name: str
    function: Callable[[Sequence[Tensor], Tensor | None, Values, int, str], Tensor]
    parameters: tuple[Parameter, ...]
    needs_base: bool
    inputs: tuple[int, int | None]
    source: str
    seeded: bool = False

    def parameter(self, name: str) -> Parameter | None:
        return next((p for p in self.parameters if p.name == name), None)
