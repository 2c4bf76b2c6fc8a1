"""Several individuals through one model in one pass: their rows are one batch, and only what holds
parameters tells them apart.

A module without parameters of its own (attention, rotary embeddings, activations) runs on the merged
batch as it is, so its fast kernels stay. One with parameters is replaced by one that holds those of every
individual: a batched product for a matrix, a lookup in each table, and the module itself on each
individual's rows for anything else.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from fitness.engines.install import Installer
from operators.tensors.weights import Layout, Stack


class UnstackableError(ValueError):
    """A model whose individuals can't run in one pass; the message names the module."""


class RowSplit:
    """How the merged batch is shared out: lane i is individual i's, ``rows`` rows of the batch.

    One object for all modules of a model, and set before every pass.
    """

    def __init__(self) -> None:
        self.count = 1
        self.rows = 1

    def split(self, merged: Tensor) -> Tensor:
        """(count · n, ...) as (count, n, ...); what all rows share, of shape (1, ...), given to each."""
        if merged.shape[0] == 1:
            merged = merged.expand(self.count * self.rows, *merged.shape[1:])
        return merged.reshape(self.count, -1, *merged.shape[1:])

    def forward_of(self, model: nn.Module) -> None:
        """Read ``rows`` off what comes into ``model``."""
        model.register_forward_pre_hook(self._enter, with_kwargs=True)

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = args[0] if args else kwargs["input_ids"]
        self.rows = len(ids) // self.count


class _StackedModule(nn.Module):
    """Stands for one module; its parameters have one dimension more in front, the individuals."""

    def __init__(self, leaf: nn.Module, rows: RowSplit) -> None:
        super().__init__()
        self.rows = rows
        for name in leaf._parameters:
            self.register_parameter(name, None)


class _StackedLinear(_StackedModule):
    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        return _product(self.rows.split(x), self.weight.transpose(1, 2), self.bias, x)


class _StackedConv1D(_StackedModule):
    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        return _product(self.rows.split(x), self.weight, self.bias, x)


def _product(x: Tensor, matrix: Tensor, bias: Tensor | None, merged: Tensor) -> Tensor:
    flat = x.reshape(len(x), -1, x.shape[-1])
    made = torch.bmm(flat, matrix) if bias is None else torch.baddbmm(bias[:, None], flat, matrix)
    return made.view(*merged.shape[:-1], made.shape[-1])


class _StackedEmbedding(_StackedModule):
    weight: Tensor

    def forward(self, ids: Tensor) -> Tensor:
        each = self.rows.split(ids)
        lane = torch.arange(len(each), device=ids.device).view(-1, *[1] * ids.ndim)
        return self.weight[lane, each].flatten(0, 1)


class _StackedElementwise(_StackedModule):
    """A norm written in Python: its vectors meet the last dimension, whatever stands before it."""

    def __init__(self, leaf: nn.Module, rows: RowSplit) -> None:
        super().__init__(leaf, rows)
        self._one = _unregistered(leaf)

    def forward(self, x: Tensor) -> Tensor:
        middle = [1] * (x.ndim - 1)
        vectors = {n: p.view(len(p), *middle, -1) for n, p in _held(self).items()}
        out: Tensor = functional_call(self._one[0], vectors, (self.rows.split(x),))
        return out.flatten(0, 1)


class _StackedOneByOne(_StackedModule):
    """Any module at all, on each individual's rows."""

    def __init__(self, leaf: nn.Module, rows: RowSplit) -> None:
        super().__init__(leaf, rows)
        self._one = _unregistered(leaf)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        split = [self.rows.split(a) if isinstance(a, Tensor) else a for a in args]
        named = {k: self.rows.split(v) if isinstance(v, Tensor) else v for k, v in kwargs.items()}
        parts = []
        for i in range(self.rows.count):
            mine = [a[i] if isinstance(a, Tensor) else a for a in split]
            its = {k: v[i] if isinstance(v, Tensor) else v for k, v in named.items()}
            own = {n: p[i] for n, p in _held(self).items()}
            parts.append(functional_call(self._one[0], own, tuple(mine), its))
        if isinstance(parts[0], tuple):
            return tuple(torch.cat(each) for each in zip(*parts, strict=True))
        return torch.cat(parts)


def _held(leaf: _StackedModule) -> dict[str, Tensor]:
    return {name: p for name, p in leaf._parameters.items() if p is not None}


def _unregistered(leaf: nn.Module) -> tuple[nn.Module]:
    # In a tuple: as a submodule it would bring its own parameters into the model again.
    return (leaf,)


_KINDS: Final[Mapping[type[nn.Module], type[_StackedModule]]] = {
    nn.Linear: _StackedLinear,
    Conv1D: _StackedConv1D,
    nn.Embedding: _StackedEmbedding,
}


def _kind(leaf: nn.Module) -> type[_StackedModule]:
    if type(leaf) in _KINDS:
        return _KINDS[type(leaf)]
    vectors = all(p.ndim == 1 for p in leaf._parameters.values() if p is not None)
    # What torch has in C++ takes its vectors in one shape only.
    written = not type(leaf).__module__.startswith("torch.nn.")
    return _StackedElementwise if vectors and written else _StackedOneByOne


def with_leaves(
    model: Any, make: Callable[[nn.Module], nn.Module | None]
) -> tuple[Any, dict[int, nn.Module]]:
    """A copy of ``model`` that shares its tensors, with ``make(leaf)`` for every module that holds
    parameters, or a copy of that where it gives None; and what was made, by ``id`` of the module.

    Raises:
        UnstackableError: parameters in a module that has others inside.
    """
    shared: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    shared[id(model.config)] = model.config
    made = {}
    for name, module in model.named_modules():
        if not module._parameters or all(p is None for p in module._parameters.values()):
            continue
        if any(p is not None for child in module.children() for p in child.parameters()):
            raise UnstackableError(f"{name} holds parameters, and modules that do")
        found = make(module)
        if found is not None:
            made[id(module)] = shared[id(module)] = found
    # Hooks of a copy for a path belong to that path.
    return copy.deepcopy(model, shared), made


class StackedModel:
    """A transformers model that runs a :class:`~operators.tensors.weights.Stack`, nothing of it copied.

    Attributes:
        model: takes batches of ``count · rows`` rows, one individual's after another's.

    Raises:
        UnstackableError: the model can't be taken apart so.
    """

    def __init__(self, model: Any, installer: Installer) -> None:
        self._rows = RowSplit()
        self._installer = installer
        self._layout: Layout | None = None
        self._plan: list[tuple[nn.Module, str, str]] = []
        self.model, self._leaves = with_leaves(model, lambda leaf: _kind(leaf)(leaf, self._rows))
        self._rows.forward_of(self.model)

    def install(self, stack: Stack) -> None:
        """Run these individuals from now on.

        Raises:
            InstallError: their tensors do not fit the model.
            UnstackableError: they have a module's buffers in them.
        """
        if stack.layout is not self._layout:
            self._plan = self._match(stack.layout)
            self._layout = stack.layout
        for leaf, attribute, name in self._plan:
            setattr(leaf, attribute, nn.Parameter(stack.tensors[name], requires_grad=False))
        self._rows.count = len(stack)

    def release(self) -> None:
        """Let go of the individuals."""
        for leaf, attribute, _ in self._plan:
            setattr(leaf, attribute, None)

    def _match(self, layout: Layout) -> list[tuple[nn.Module, str, str]]:
        plan = []
        for module, attribute, name, parameter in self._installer.places(layout):
            if not parameter:
                raise UnstackableError(f"{name} is a buffer")
            plan.append((self._leaves[id(module)], attribute, name))
        return plan
