"""Point a torch module's parameters at given tensors, by name and without a copy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from fitness.engines.base import InstallError
from operators.tensors.weights import Layout, TensorSpec, Weights


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a module keeps one tensor.

    Attributes:
        names: its own name, then those of parameters tied to it.
    """

    module: nn.Module
    attribute: str
    names: tuple[str, ...]
    parameter: bool
    shape: tuple[int, ...]
    dtype: torch.dtype


class Installer:
    """Installs weights in one module, again and again.

    A parameter takes the tensor of its own name; else that of a parameter it is tied to (a
    checkpoint need not hold a tied head twice). Names count with and without ``prefix``, which
    some checkpoints leave out. Persistent float buffers are replaced where a tensor has their
    name, and stay otherwise. Tensors that the module has no place for are left out.
    """

    def __init__(self, module: nn.Module, *, prefix: str = "", device: str = "cpu") -> None:
        self._slots = tuple(_slots(module))
        self._prefix = prefix + "." if prefix else ""
        self._device = torch.device(device)
        self._layout: Layout | None = None
        self._plan: list[tuple[nn.Module, str, str, bool]] = []

    def install(self, weights: Weights) -> None:
        """Make the module's parameters views of ``weights``.

        Raises:
            InstallError: a parameter is in no tensor or has another shape, tensors are on another
                device, or their dtypes are mixed in another way than the module's are.
        """
        for module, attribute, name, parameter in self.places(weights.layout):
            tensor = weights[name]
            if tensor.device.type != self._device.type:
                raise InstallError(
                    f"tensor {name!r} is on {tensor.device}, and the engine on {self._device}. "
                    "Build the weights on the engine's device."
                )
            # setattr, not .data: it also serves modules that keep lists of their parameters (RNNs).
            setattr(
                module,
                attribute,
                nn.Parameter(tensor, requires_grad=False) if parameter else tensor,
            )

    def places(self, layout: Layout) -> Sequence[tuple[nn.Module, str, str, bool]]:
        """(module, its attribute, the tensor that it takes, whether that is a parameter) of all that is
        installed from weights of ``layout``.

        Raises:
            InstallError: they do not cover the module.
        """
        if layout is not self._layout:
            self._plan = self._match(layout)
            self._layout = layout
        return self._plan

    def release(self) -> None:
        """Let go of the installed tensors; the module can't run until others are installed."""
        for module, attribute, _, parameter in self._plan:
            empty = torch.empty(0, device=self._device)
            value = nn.Parameter(empty, requires_grad=False) if parameter else empty
            setattr(module, attribute, value)

    def _match(self, layout: Layout) -> list[tuple[nn.Module, str, str, bool]]:
        specs = {spec.name: spec for spec in layout}
        plan = []
        dtypes: dict[torch.dtype, TensorSpec] = {}
        for slot in self._slots:
            spec = next((specs[n] for n in self._spellings(slot) if n in specs), None)
            if spec is None:
                if not slot.parameter:
                    continue
                raise InstallError(
                    f"no tensor for the model's parameter {slot.names[0]!r}"
                    + (f" (nor for {slot.names[1]!r}, tied to it)" if slot.names[1:] else "")
                    + f". The weights have {len(specs)} tensors, such as "
                    f"{', '.join(map(repr, list(specs)[:3]))}. "
                    "They must be of the architecture that the engine loaded."
                )
            if spec.shape != slot.shape:
                raise InstallError(
                    f"tensor {spec.name!r} is {list(spec.shape)}, but the model's parameter "
                    f"{slot.names[0]!r} is {list(slot.shape)}. They must be of one architecture."
                )
            if slot.parameter and dtypes.setdefault(slot.dtype, spec).dtype != spec.dtype:
                other = dtypes[slot.dtype]
                raise InstallError(
                    f"tensors {other.name!r} and {spec.name!r} are {other.describe()} and "
                    f"{spec.describe()}, but the model needs them in one dtype. "
                    "Convert the founders to one dtype."
                )
            plan.append((slot.module, slot.attribute, spec.name, slot.parameter))
        return plan

    def _spellings(self, slot: _Slot) -> Iterator[str]:
        for name in slot.names:
            yield name
            if self._prefix:
                bare = name.removeprefix(self._prefix)
                yield bare if bare != name else self._prefix + name


def _slots(module: nn.Module) -> Iterator[_Slot]:
    names_of: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names_of.setdefault(id(parameter), []).append(name)
    modules = dict(module.named_modules(remove_duplicate=False))
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owner, _, attribute = name.rpartition(".")
        tied = [n for n in names_of[id(parameter)] if n != name]
        shape = tuple(parameter.shape)
        yield _Slot(modules[owner], attribute, (name, *tied), True, shape, parameter.dtype)
    kept = module.state_dict(keep_vars=True).keys()
    for name, buffer in module.named_buffers(remove_duplicate=False):
        if name in kept and buffer.is_floating_point():
            owner, _, attribute = name.rpartition(".")
            shape = tuple(buffer.shape)
            yield _Slot(modules[owner], attribute, (name,), False, shape, buffer.dtype)
