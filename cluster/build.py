"""Builder: an individual's weights from recipe and founders, and the digest that says what was built.

A host builds here what it runs, and a rebuild years later the same, bit for bit: there is one way.
"""

import hashlib
import json
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from cluster.errors import CheckpointError
from cluster.founders import (
    FounderFiles,
    base_weights,
    bytes_of,
    digest_of,
    layout_for,
    map_founders,
)
from fitness.engine import EngineError
from operators.architectures import architecture_of
from operators.materialize import Materializer
from operators.path import LayerPath, PathBuilder
from operators.recipe import Recipe, Route
from operators.weights import Weights, allocate


class Builder:
    """Maps founders, and holds one model's worth of weights, filled again by every build.

    Args:
        base: of the run; individuals have its tensors' names and shapes.
        dtype: of individuals ("bfloat16"); "" for the base's own dtypes.
        device: where individuals are built to. The sums are done in host memory, wherever that is, so
            the bits do not depend on it.

    Attributes:
        buffer: the weights built last, unless that was a path.

    Raises:
        CheckpointError: founders that can't be read, or changed since the run began; no such dtype.
    """

    def __init__(
        self,
        base: FounderFiles,
        founders: Sequence[FounderFiles],
        *,
        dtype: str = "",
        device: str = "cpu",
    ) -> None:
        self._base, self._device = base, device
        self._founders = map_founders((base, *founders))
        layout = layout_for(base_weights(base.founder, self._founders), dtype_of(dtype))
        self._materializer = Materializer(layout, self._founders)
        self._paths: PathBuilder | None = None
        self._known = WeakIdKeyDictionary()  # digests of tensors that paths lead through
        self.buffer = allocate(layout, device)

    def build(self, recipe: Recipe) -> Weights | LayerPath:
        """The individual, until the next build; a ``Route`` as a path, laid through models that stay.

        Raises:
            MissingFounderError: the recipe names a founder that is not here.
            EngineError, ArchitectureError: a path through models that have none.
        """
        if isinstance(recipe, Route):
            return self._path_builder().build(recipe)
        return self._materializer.build(recipe, self.buffer)

    def build_all(self, recipes: Sequence[Recipe], outs: Sequence[Weights]) -> tuple[Weights, ...]:
        """Individuals that are no paths, in one pass over the founders: each as :meth:`build` makes it.

        They are written into ``outs``, as many weights of :attr:`buffer`'s layout, none of them twice.

        Raises:
            MissingFounderError: a recipe names a founder that is not here.
        """
        return self._materializer.build_all(recipes, outs)

    def digest(self, built: Weights | LayerPath) -> str:
        """SHA-256 over what was built, to the last bit; a GPU's tensors are read piece by piece.

        Of weights it is :func:`~cluster.founders.digest_of`, so an exported checkpoint of the individual,
        in the dtype that it was run in, has the same.

        Of a path it is over the canonical JSON of ``{"layers", "scales", "tensors"}``: of each step the
        layer's number in its model, and its scale; and name, dtype, shape and the bytes' own SHA-256 of
        each tensor of the path laid out, steps numbered in order. An exported path is another model, its
        scales folded into the tensors, and has another digest.
        """
        if isinstance(built, Weights):
            return digest_of(built)
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


def dtype_of(name: str) -> torch.dtype | None:
    """The floating-point dtype of torch by that name; None for "".

    Raises:
        CheckpointError: there is none.
    """
    if not name:
        return None
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise CheckpointError(f"engine.dtype: {name!r} is no floating-point dtype of torch")
    return dtype
