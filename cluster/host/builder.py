"""Builder: builds an individual from recipe and founders, and computes its digest.

Hosts and rebuilds use the same code, so a rebuilt individual has the same bits.
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

# Number of individuals whose factors are cached: a host asks for their form before it builds them.
_APPLIED: Final = 64


class Builder:
    """Memory-mapped founders, and a buffer of one model's size that every build overwrites.

    Args:
        base: the run's base; individuals have its tensor names and shapes.
        dtype: dtype of individuals ("bfloat16"); "" for the base's dtypes.
        device: where individuals are stored. Sums are computed in host memory, so the bits do not
            depend on it.
        adapters: ``merge`` adds low-rank changes to the base's weights; ``apply`` keeps an individual
            that is the base with such a change as factors.

    Attributes:
        buffer: the weights built last.

    Raises:
        CheckpointError: founders can't be read, or changed since the run began.
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
        self._plain: Weights | None = None  # the base of individuals as factors
        self._applied: OrderedDict[Recipe, Adapted | None] = OrderedDict()
        self._known = WeakIdKeyDictionary()  # digests of the tensors of paths
        self.buffer = allocate(layout, device)

    def build(self, recipe: Recipe) -> Weights | LayerPath | Adapted:
        """Build an individual. Weights are valid until the next build; paths and factors stay valid.

        Raises:
            MissingFounderError: the recipe names a founder that is not here.
            EngineError, ArchitectureError: the models of a path do not support paths.
        """
        if isinstance(recipe, Route):
            return self._path_builder().build(recipe)
        return self.adapted(recipe) or self._materializer.build(recipe, self.buffer)

    def adapted(self, recipe: Recipe) -> Adapted | None:
        """Build an individual as factors, in the dtypes of the tensors that they change.

        None if ``adapters`` is ``merge``, or the individual is not the base with a low-rank change.

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
        if not factors:  # the base itself runs as whole weights
            return None
        if self._plain is None:
            self._plain = allocate(self._materializer.layout, self._device)
            self._materializer.build(self._base.founder, self._plain)
        base = self._plain

        def like(tensor: Tensor, name: str) -> Tensor:
            return tensor.to(base[name].device, base[name].dtype).contiguous()

        return Adapted(base, {n: Factors(like(f.b, n), like(f.a, n)) for n, f in factors.items()})

    def whole(self, recipe: Recipe) -> Weights:
        """Build an individual that is not a path as whole weights, valid until the next build."""
        return self._materializer.build(recipe, self.buffer)

    def build_all(self, recipes: Sequence[Recipe], outs: Sequence[Weights]) -> tuple[Weights, ...]:
        """Build individuals that are not paths in one pass over the founders, with the bits of :meth:`build`.

        They are written into ``outs``: distinct weights of :attr:`buffer`'s layout, one for each recipe.

        Raises:
            MissingFounderError: a recipe names a founder that is not here.
        """
        return self._materializer.build_all(recipes, outs)

    @property
    def bytes(self) -> int:
        """The size of one individual's weights in bytes."""
        return sum(s.elements * s.dtype.itemsize for s in self._materializer.layout)

    def allocate(self, count: int) -> Stack:
        """Allocate weights for ``count`` individuals on the device."""
        return allocate_stack(self._materializer.layout, count, self._device)

    def digest(self, built: Weights | LayerPath | Adapted) -> str:
        """SHA-256 over all bits of what was built; tensors on a GPU are read in pieces.

        Weights: :func:`~cluster.founders.checkpoints.digest_of`. A checkpoint exported in the dtype in which the
        individual ran has the same digest.

        Factors: :func:`~cluster.founders.adapters.adapter_digest` of the base's digest and the factors.

        Path: over the canonical JSON of ``{"layers", "scales", "tensors"}``: each step's layer number in its
        model and its scale; and name, dtype, shape and SHA-256 of the bytes of each tensor, with steps
        numbered in order. An exported path has its scales folded into the tensors, so another digest.
        """
        if isinstance(built, Weights):
            return digest_of(built)
        if isinstance(built, Adapted):
            return adapter_digest(Adapter(self._base.founder, built.factors))
        tensors = [
            [s.name, str(s.dtype), list(s.shape), self._tensor_digest(built.weights[s.name])]
            for s in built.weights.layout
        ]
        content = {"layers": built.layers, "scales": built.scales, "tensors": tensors}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _tensor_digest(self, tensor: Tensor) -> str:
        # Cached by tensor: the models of paths are never overwritten.
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
