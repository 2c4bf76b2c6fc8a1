"""Data-flow paths made real: the tensors of a path's steps, under the names of one longer model."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

import torch
from torch import Tensor

from operators.build.architectures import Architecture, ArchitectureError
from operators.build.materialize import Materializer
from operators.recipe import Founder, Recipe, Route, parts
from operators.tensors.low_rank import Adapter
from operators.tensors.weights import Layout, Weights, allocate, weights_of

# Built models that are kept for the next path: those of a search are mostly the same few.
BUILT_CACHE_BYTES = 4 * 2**30


@dataclass(frozen=True, slots=True)
class LayerPath:
    """What an engine runs for a :class:`~operators.recipe.Route`.

    Attributes:
        weights: of a model with as many layers as steps. Its tensors are those of the models that the
            steps name, not copies: a layer that comes twice is there once.
        layers: of each step, the number of its layer in the model that it came from.
        scales: of each step, what the residual stream is multiplied by on entering it.
    """

    weights: Weights
    layers: tuple[int, ...]
    scales: tuple[float, ...]


class PathBuilder:
    """Lays paths through founders, which stay where they are, and through models built for them."""

    def __init__(
        self,
        materializer: Materializer,
        founders: Mapping[Founder, Weights | Adapter],
        architecture: Architecture,
        device: torch.device | str = "cpu",
    ) -> None:
        self._materializer = materializer
        self._founders = founders
        names = materializer.layout.names
        bare = not any(n.startswith(architecture.layers) for n in names)
        self.architecture = architecture.without_prefix() if bare else architecture
        self._device = torch.device(device)
        self._models: OrderedDict[Recipe, _Model] = OrderedDict()
        self._bytes = 0

    @property
    def layout(self) -> Layout:
        """Of the models that paths lead through."""
        return self._materializer.layout

    def build(self, route: Route) -> LayerPath:
        """The path of ``route``.

        Where the embedding's model and the head's differ, a head that is tied to its embedding gets a
        tensor of its own.

        Raises:
            ArchitectureError: a step names a layer that its model does not have.
            MissingFounderError: a part names a founder that is not here.
        """
        models = {part: self._model(part) for part in parts(route)}
        architecture = self.architecture
        tensors = dict(models[route.embed].embed)
        tensors |= models[route.head].head
        if route.head != route.embed and architecture.output_head not in tensors:
            tensors[architecture.output_head] = models[route.head].embed[architecture.embedding]
        for number, step in enumerate(route.steps):
            layers = models[step.recipe].layers
            if step.layer >= len(layers):
                raise ArchitectureError(
                    f"path: step {number} wants layer {step.layer} of a model with {len(layers)}"
                )
            tensors |= {architecture.name(number, r): t for r, t in layers[step.layer].items()}
        return LayerPath(
            weights_of(tensors),
            tuple(s.layer for s in route.steps),
            tuple(s.scale for s in route.steps),
        )

    def _model(self, recipe: Recipe) -> "_Model":
        if recipe in self._models:
            self._models.move_to_end(recipe)
            return self._models[recipe]
        weights = self._founders.get(recipe) if isinstance(recipe, Founder) else None
        layout = self._materializer.layout
        if isinstance(weights, Weights) and self._fits(weights.layout, layout):
            model = _Model.of(weights, self.architecture, 0)
        else:
            built = self._materializer.build(recipe, allocate(layout, self._device))
            size = sum(t.nbytes for t in built.tensors.values())
            model = _Model.of(built, self.architecture, size)
        self._models[recipe] = model
        self._bytes += model.bytes
        while self._bytes > BUILT_CACHE_BYTES and len(self._models) > 1:
            self._bytes -= self._models.popitem(last=False)[1].bytes
        return model

    def _fits(self, have: Layout, want: Layout) -> bool:
        return self._device.type == "cpu" and have == want


@dataclass(frozen=True, slots=True)
class _Model:
    """A model's tensors by where they go; ``bytes`` is what it holds beyond the founders."""

    embed: Mapping[str, Tensor]
    layers: tuple[Mapping[str, Tensor], ...]
    head: Mapping[str, Tensor]
    bytes: int

    @classmethod
    def of(cls, weights: Weights, architecture: Architecture, size: int) -> "_Model":
        embed: dict[str, Tensor] = {}
        head: dict[str, Tensor] = {}
        layers: dict[int, dict[str, Tensor]] = {}
        for name, tensor in weights.tensors.items():
            at = architecture.split(name)
            if at is not None:
                layers.setdefault(at[0], {})[at[1]] = tensor
            else:
                (head if architecture.is_head(name) else embed)[name] = tensor
        return cls(embed, tuple(layers[i] for i in sorted(layers)), head, size)


def folded(path: LayerPath, architecture: Architecture) -> Iterator[tuple[str, Tensor]]:
    """The tensors of ``path`` as an ordinary model without scales, which gives the same logits.

    Exact but for rounding and the norms' epsilon (DESIGN, data-flow paths). ``architecture`` is the one
    that laid the path: :attr:`PathBuilder.architecture`.
    """
    so_far = list(accumulate(path.scales, mul))
    for name in path.weights.layout.names:
        at = architecture.split(name)
        tensor = path.weights[name]
        yield name, tensor if at is None else architecture.fold(at[1], tensor, so_far[at[0]])
