"""Builder: an individual's weights from recipe and founders, and the digest that says what was built.

A host builds here what it runs, and a rebuild years later the same, bit for bit: there is one way.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Literal

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from cluster.founders.adapters import adapter_digest
from cluster.founders.checkpoints import (
    FounderFiles,
    base_weights,
    bytes_of,
    digest_of,
    layout_for,
    map_founders,
)
from fitness.engines.base import EngineError
from fitness.engines.dtype import dtype_of
from operators.build.architectures import architecture_of
from operators.build.materialize import Materializer
from operators.build.paths import LayerPath, PathBuilder
from operators.recipe import Recipe, Route
from operators.tensors.low_rank import Adapted, Adapter, Factors
from operators.tensors.weights import Stack, Weights, allocate, allocate_stack

# Individuals whose factors are kept: a host asks whether there are any before it builds a group.
_APPLIED: Final = 64


class Builder:
    """Maps founders, and holds one model's worth of weights, filled again by every build.

    Args:
        base: of the run; individuals have its tensors' names and shapes.
        dtype: of individuals ("bfloat16"); "" for the base's own dtypes.
        device: where individuals are built to. The sums are done in host memory, wherever that is, so
            the bits do not depend on it.
        adapters: ``merge`` adds changes of low rank to the base's weights; ``apply`` leaves every
            individual that is the base with such a change as factors.

    Attributes:
        buffer: the weights built last, unless that was a path.

    Raises:
        CheckpointError: founders that can't be read, or changed since the run began.
        EngineError: torch has no such dtype.
    """

    def __init__(
        self,
        base: FounderFiles,
        founders: Sequence[FounderFiles],
        *,
        dtype: str = "",
        device: str = "cpu",
        adapters: Literal["merge", "apply"] = "merge",
    ) -> None:
        self._base, self._device, self._adapters = base, device, adapters
        self._founders = map_founders((base, *founders))
        layout = layout_for(base_weights(base.founder, self._founders), dtype_of(dtype))
        self._materializer = Materializer(layout, self._founders)
        self._paths: PathBuilder | None = None
        self._plain: Weights | None = None  # the base, under factors
        self._applied: OrderedDict[Recipe, Adapted | None] = OrderedDict()
        self._known = WeakIdKeyDictionary()  # digests of tensors that paths lead through
        self.buffer = allocate(layout, device)

    def build(self, recipe: Recipe) -> Weights | LayerPath | Adapted:
        """The individual, until the next build; a ``Route`` as a path, laid through models that stay.

        What is built as factors stays, too.

        Raises:
            MissingFounderError: the recipe names a founder that is not here.
            EngineError, ArchitectureError: a path through models that have none.
        """
        if isinstance(recipe, Route):
            return self._path_builder().build(recipe)
        return self.adapted(recipe) or self._materializer.build(recipe, self.buffer)

    def adapted(self, recipe: Recipe) -> Adapted | None:
        """The individual as factors, in the dtypes of the tensors that they change; None where they are
        not to be applied, or where it is not the base with some change of low rank.

        Raises:
            MissingFounderError: the recipe names a founder that is not here.
        """
        if self._adapters == "merge" or isinstance(recipe, Route):
            return None
        if recipe not in self._applied:
            self._applied[recipe] = self._as_factors(recipe)
            if len(self._applied) > _APPLIED:
                self._applied.popitem(last=False)
        return self._applied[recipe]

    def _as_factors(self, recipe: Recipe) -> Adapted | None:
        factors = self._materializer.factors(recipe)
        if not factors:  # the base itself is a whole model
            return None
        if self._plain is None:
            self._plain = allocate(self._materializer.layout, self._device)
            self._materializer.build(self._base.founder, self._plain)
        base = self._plain

        def like(tensor: Tensor, name: str) -> Tensor:
            return tensor.to(base[name].device, base[name].dtype).contiguous()

        return Adapted(base, {n: Factors(like(f.b, n), like(f.a, n)) for n, f in factors.items()})

    def whole(self, recipe: Recipe) -> Weights:
        """The weights of an individual that is no path, added up, until the next build."""
        return self._materializer.build(recipe, self.buffer)

    def build_all(self, recipes: Sequence[Recipe], outs: Sequence[Weights]) -> tuple[Weights, ...]:
        """Individuals that are no paths, in one pass over the founders: each as :meth:`build` makes it.

        They are written into ``outs``, as many weights of :attr:`buffer`'s layout, none of them twice.

        Raises:
            MissingFounderError: a recipe names a founder that is not here.
        """
        return self._materializer.build_all(recipes, outs)

    @property
    def bytes(self) -> int:
        """The size of one individual."""
        return sum(s.elements * s.dtype.itemsize for s in self._materializer.layout)

    def allocate(self, count: int) -> Stack:
        """Room for so many individuals, where they are built to."""
        return allocate_stack(self._materializer.layout, count, self._device)

    def digest(self, built: Weights | LayerPath | Adapted) -> str:
        """SHA-256 over what was built, to the last bit; a GPU's tensors are read piece by piece.

        Of weights it is :func:`~cluster.founders.checkpoints.digest_of`, so an exported checkpoint of the individual,
        in the dtype that it was run in, has the same.

        Of factors it is :func:`~cluster.founders.adapters.adapter_digest`, over the base's digest and the factors as
        they run: no weights are added up for it.

        Of a path it is over the canonical JSON of ``{"layers", "scales", "tensors"}``: of each step the
        layer's number in its model, and its scale; and name, dtype, shape and the bytes' own SHA-256 of
        each tensor of the path laid out, steps numbered in order. An exported path is another model, its
        scales folded into the tensors, and has another digest.
        """
        if isinstance(built, Weights):
            return digest_of(built)
        if isinstance(built, Adapted):
            return adapter_digest(Adapter(self._base.founder, built.factors))
        tensors = [
            [s.name, str(s.dtype), list(s.shape), self._tensor_digest(built.weights[s.name])]
            for s in built.weights.layout
        ]
        said = {"layers": built.layers, "scales": built.scales, "tensors": tensors}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def _tensor_digest(self, tensor: Tensor) -> str:
        # Once for each tensor, not for each path: models that paths lead through are never refilled.
        if tensor not in self._known:
            digest = hashlib.sha256()
            for piece in bytes_of(tensor):
                digest.update(piece)
            self._known[tensor] = digest.hexdigest()
        return str(self._known[tensor])

    def _path_builder(self) -> PathBuilder:
        if self._paths is None:
            config = self._base.path / "config.json"
            if not config.is_file():
                raise EngineError("data-flow paths need a language model: engine.kind: hf")
            self._paths = PathBuilder(
                self._materializer,
                self._founders,
                architecture_of(json.loads(config.read_text(encoding="utf-8"))),
                self._device,
            )
        return self._paths
