"""Many changes of low rank on one model in one pass, none of them added to its weights.

All individuals' rows go through the model's own matrices together, which are the same for all, and each
individual's through its factors: y = x·Wᵀ + (x·Aᵀ)·Bᵀ. Nothing but factors is held for each.
Source: S-LoRA, arXiv 2311.03285 (section 4: the base's product batched, the adapters' apart).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from fitness.engines.base import EngineError
from fitness.engines.hf.model_batch.stacked import RowSplit, with_leaves
from fitness.engines.install import Installer
from operators.tensors.low_rank import Adapted, Factors


class _AdaptedModule(nn.Module):
    """Stands for one module, with what each individual adds to it: (left, right), or None."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, leaf: nn.Module, rows: RowSplit) -> None:
        super().__init__()
        self.rows = rows
        self.changes: Sequence[tuple[Tensor, Tensor] | None] = ()
        for name, parameter in leaf._parameters.items():
            self.register_parameter(name, parameter)

    @staticmethod
    def change(factors: Factors) -> tuple[Tensor, Tensor]:
        """(left, right): what is added is x · left · right."""
        return factors.b, factors.a

    def _plus_changes(self, y: Tensor, x: Tensor) -> Tensor:
        # One by one and not as one batched product: an individual's bits must not depend on whose rank
        # is next to its own. The factors are small beside the matrix that all share.
        outs = y.view(self.rows.count, -1, y.shape[-1])
        rows = x.reshape(self.rows.count, -1, x.shape[-1])
        for out, row, change in zip(outs, rows, self.changes, strict=True):
            if change is not None:
                out.addmm_(row @ change[0], change[1])
        return y


class _AdaptedLinear(_AdaptedModule):
    @staticmethod
    def change(factors: Factors) -> tuple[Tensor, Tensor]:
        return factors.a.T, factors.b.T

    def forward(self, x: Tensor) -> Tensor:
        y = functional.linear(x, self.weight, self.bias)
        return self._plus_changes(y, x) if any(self.changes) else y


class _AdaptedConv1D(_AdaptedModule):
    def forward(self, x: Tensor) -> Tensor:
        y = functional.linear(x, self.weight.T, self.bias)
        return self._plus_changes(y, x) if any(self.changes) else y


class _AdaptedEmbedding(_AdaptedModule):
    def forward(self, ids: Tensor) -> Tensor:
        if not any(self.changes):
            return functional.embedding(ids, self.weight)
        each = self.rows.split(ids)
        y = functional.embedding(each.flatten(0, 1), self.weight)
        for out, own, change in zip(y.view(*each.shape, -1), each, self.changes, strict=True):
            if change is not None:
                out += change[0][own] @ change[1]
        return y


_KINDS: Final[Mapping[type[nn.Module], type[_AdaptedModule]]] = {
    nn.Linear: _AdaptedLinear,
    Conv1D: _AdaptedConv1D,
    nn.Embedding: _AdaptedEmbedding,
}


class AdaptedModel:
    """A transformers model that runs individuals as their base and factors.

    Attributes:
        model: takes batches of ``individuals · rows`` rows, one individual's after another's.

    Raises:
        UnstackableError: the model can't be taken apart so.
    """

    def __init__(self, model: Any, device: str) -> None:
        self._rows = RowSplit()

        def make(leaf: nn.Module) -> nn.Module | None:
            kind = _KINDS.get(type(leaf))
            return None if kind is None else kind(leaf, self._rows)

        self.model, _ = with_leaves(model, make)
        self._rows.forward_of(self.model)
        self._installer = Installer(self.model, prefix=model.base_model_prefix, device=device)
        self._leaves: list[tuple[_AdaptedModule, str]] = []

    def install(self, individuals: Sequence[Adapted]) -> None:
        """Run these from now on; they have one base. Nothing is copied.

        Raises:
            InstallError: the base's tensors do not fit the model.
            EngineError: a factor is of a tensor that no matrix or embedding of the model is.
        """
        base = individuals[0].base
        if any(each.base is not base for each in individuals):
            raise ValueError("individuals of several bases")
        self._installer.install(base)
        self._leaves = [
            (module, name)
            for module, attribute, name, _ in self._installer.places(base.layout)
            if isinstance(module, _AdaptedModule) and attribute == "weight"
        ]
        there = {name for _, name in self._leaves}
        if other := sorted({n for each in individuals for n in each.factors} - there):
            raise EngineError(
                f"the change of {other[0]!r} can't be applied beside it: it is in no plain linear "
                "layer or embedding of this model. Use engine.adapters: merge"
            )
        for leaf, name in self._leaves:
            found = [each.factors.get(name) for each in individuals]
            leaf.changes = [None if f is None else leaf.change(f) for f in found]
        self._rows.count = len(individuals)

    def release(self) -> None:
        """Let go of the individuals; the base stays."""
        for leaf, _ in self._leaves:
            leaf.changes = ()
        self._rows.count = 1
