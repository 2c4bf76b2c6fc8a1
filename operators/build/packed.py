"""Small models as single vectors, so that a child takes as many steps as it has different coefficients.

Tensor by tensor, a child of a model of forty small tensors is mostly Python. Here founders and noise are
held joined, in float32, and neighbouring tensors whose coefficients are equal are summed as one.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.merge.blocks import BLOCK
from operators.recipe import Founder, Linear, Noise
from operators.recipe.coefficients import Places
from operators.tensors.weights import Layout, Weights

MOST_ELEMENTS = 1 << 20  # of a model that is held so

Vector = NDArray[np.float32]


class Packed:
    """Sums of the joined tensors of models of one layout. Not thread-safe.

    Args:
        layout: of the models, with no more than MOST_ELEMENTS.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._places = Places(layout.names)
        sizes = [s.elements for s in layout]
        self._starts = np.cumsum([0, *sizes])
        self._made = np.empty(layout.elements, dtype=np.float32)
        self._product = np.empty(min(BLOCK, layout.elements), dtype=np.float32)
        pieces = torch.split(torch.from_numpy(self._made), sizes)
        self._pieces = [p.view(s.shape) for p, s in zip(pieces, layout, strict=True)]

    def joined(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """``tensors`` in float32, one after the other in the layout's order."""
        return torch.cat([tensors[s.name].reshape(-1).float() for s in self._layout])

    def write(
        self, recipe: Linear, sources: Mapping[Founder | Noise, Vector], out: Weights
    ) -> None:
        """The sum of ``recipe`` into ``out``: element by element 0 + w·s + w·s + ..., then cast."""
        # torch rounds a coefficient to float32 before it multiplies, and so does this.
        exact = np.array([self._places.values(c) for _, c in recipe.terms])
        with np.errstate(over="ignore"):
            weights = exact.astype(np.float32)
        leaves = (part for part, _ in recipe.terms if isinstance(part, Founder | Noise))
        vectors = [sources[leaf] for leaf in leaves]
        differ = np.any(weights[:, 1:] != weights[:, :-1], axis=0)
        firsts = [0, *(np.flatnonzero(differ) + 1).tolist()]
        ends = [*firsts[1:], len(self._pieces)]
        with np.errstate(all="ignore"):  # what overflows is inf, as in torch
            for first, end in zip(firsts, ends, strict=True):
                self._sum(vectors, weights[:, first], *self._starts[[first, end]].tolist())
        torch._foreach_copy_([out[s.name] for s in self._layout], self._pieces)

    def _sum(self, vectors: list[Vector], weights: Vector, start: int, stop: int) -> None:
        for at in range(start, stop, BLOCK):
            end = min(at + BLOCK, stop)
            made, product = self._made[at:end], self._product[: end - at]
            made.fill(0.0)
            for vector, weight in zip(vectors, weights, strict=True):
                np.multiply(vector[at:end], weight, out=product)
                np.add(made, product, out=made)
