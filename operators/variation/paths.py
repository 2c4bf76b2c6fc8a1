"""Data-flow paths as genes: slots and indicators (Sakana's space), and moves on lists of steps.

Sources: arXiv 2403.13187, section 3.2 (slots, indicator, scales); SCIENCE.md section 5 for the moves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from operators.recipe import Recipe, Route, Step

Rng: TypeAlias = np.random.Generator
SCALES = (0.1, 10.0)  # of one step, and of all steps of a path up to any one together
SPAN = 3  # the longest run of steps that one move repeats, swaps or takes from another model


@dataclass(frozen=True, slots=True)
class Gene:
    """One step as a gene: which model (by number), which of its layers, and the scale of its input."""

    model: int
    layer: int
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class PathGenes:
    """A path as genes; ``embed`` and ``head`` are the models that own the embedding and the head."""

    embed: int
    steps: tuple[Gene, ...]
    head: int


def own_path(model: int, layers: int) -> PathGenes:
    """The path that a model itself is: all its layers in order."""
    return PathGenes(model, tuple(Gene(model, layer) for layer in range(layers)), model)


def decode(genes: PathGenes, models: Sequence[Recipe], layers: int) -> Recipe:
    """The recipe of a path over ``models``, each of ``layers`` layers.

    A model's own path is that model, so that one individual never has two names. Scales are
    :func:`bounded`.

    Raises:
        ValueError: the path has no step.
    """
    if genes == own_path(genes.embed, layers):
        return models[genes.embed]
    steps = tuple(Step(models[g.model], g.layer, g.scale) for g in bounded(genes.steps))
    return Route(models[genes.embed], steps, models[genes.head])


def bounded(steps: Sequence[Gene]) -> tuple[Gene, ...]:
    """``steps`` with scales changed where needed, so that the product up to each stays in SCALES."""
    kept, product = [], 1.0
    for gene in steps:
        allowed = min(max(product * gene.scale, SCALES[0]), SCALES[1])
        if allowed != product * gene.scale:
            gene = replace(gene, scale=allowed / product)
        product = allowed
        kept.append(gene)
    return tuple(kept)


def fitted(genes: PathGenes, shortest: int, longest: int) -> PathGenes:
    """``genes`` within the limits of length: cut at its end, or begun again until it is long enough."""
    count = min(max(len(genes.steps), shortest), longest)
    rounds = -(-count // len(genes.steps))
    return replace(genes, steps=(genes.steps * rounds)[:count])


@dataclass(frozen=True, slots=True)
class Slots:
    """All layers of ``models`` models in order, ``repeats`` times: what an indicator chooses from."""

    models: int
    layers: int
    repeats: int

    @property
    def block(self) -> int:
        """Slots of one repetition: M, the layers of all models together."""
        return self.models * self.layers

    @property
    def count(self) -> int:
        """T = M·r."""
        return self.block * self.repeats

    def gene(self, slot: int, scale: float = 1.0) -> Gene:
        model, layer = divmod(slot % self.block, self.layers)
        return Gene(model, layer, scale)

    def steps(self, taken: NDArray[np.bool_], scales: Sequence[float]) -> tuple[Gene, ...]:
        """The steps of an indicator, shape (T,), with one scale for each step taken."""
        slots = np.flatnonzero(taken)
        return tuple(self.gene(int(s), float(w)) for s, w in zip(slots, scales, strict=True))

    def own(self, model: int, *, spread: bool = False) -> NDArray[np.bool_]:
        """The indicator of a model's own path: in the first repetition, or spread over all of them.

        Spread out, there are slots of every other model between its steps, so that one exchange can
        put another model's layer in the place of one of its own.
        """
        taken = np.zeros(self.count, dtype=np.bool_)
        for layer in range(self.layers):
            turn = layer * self.repeats // self.layers if spread else 0
            taken[turn * self.block + model * self.layers + layer] = True
        return taken

    def fitted(
        self, taken: NDArray[np.bool_], model: int, shortest: int, longest: int
    ) -> NDArray[np.bool_]:
        """``taken`` within the limits of length: without its last slots, or with more.

        Those are the first free slots of ``model``, and of the others where it has none left.
        """
        inside = np.flatnonzero(taken)[:longest]
        free = np.setdiff1d(np.arange(self.count), inside)
        other = (free % self.block) // self.layers != model
        more = free[np.argsort(other, kind="stable")][: max(0, shortest - len(inside))]
        fitting = np.zeros(self.count, dtype=np.bool_)
        fitting[inside] = fitting[more] = True
        return fitting


@dataclass(frozen=True, slots=True)
class Choices:
    """What the moves may choose from.

    Attributes:
        models: how many models there are, each of ``layers`` layers.
        shortest: steps that a path has at least, ``longest`` at most.
        influence: of each model, how much each layer changes the residual stream, in [0, 1]; shape
            (models, layers). A layer of little influence is dropped first. None: all alike.
    """

    models: int
    layers: int
    shortest: int
    longest: int
    influence: NDArray[np.float64] | None = None

    def importance(self, gene: Gene) -> float:
        return 1.0 if self.influence is None else float(self.influence[gene.model, gene.layer])


Steps: TypeAlias = tuple[Gene, ...]


def _weights(values: Sequence[float]) -> NDArray[np.float64]:
    shares = np.asarray(values, dtype=np.float64) + 1e-3
    total: float = shares.sum()
    return shares / total


def _span(steps: Steps, rng: Rng) -> tuple[int, int]:
    start = int(rng.integers(len(steps)))
    return start, min(len(steps), start + int(rng.integers(1, SPAN + 1)))


def drop(steps: Steps, choices: Choices, rng: Rng) -> Steps:
    """Without one step; rather one of little influence."""
    least = _weights([1.0 - min(1.0, choices.importance(g)) for g in steps])
    at = int(rng.choice(len(steps), p=least))
    return steps[:at] + steps[at + 1 :]


def repeat(steps: Steps, choices: Choices, rng: Rng) -> Steps:
    """A run of up to three steps twice."""
    start, end = _span(steps, rng)
    return steps[:end] + steps[start:]


def swap(steps: Steps, choices: Choices, rng: Rng) -> Steps:
    """Two neighbours change places."""
    if len(steps) < 2:
        return steps
    at = int(rng.integers(len(steps) - 1))
    return (*steps[:at], steps[at + 1], steps[at], *steps[at + 2 :])


def insert(steps: Steps, choices: Choices, rng: Rng) -> Steps:
    """One more step, any layer of any model, rather one of great influence, anywhere."""
    everything = [Gene(m, k) for m in range(choices.models) for k in range(choices.layers)]
    gene = everything[
        int(rng.choice(len(everything), p=_weights([choices.importance(g) for g in everything])))
    ]
    at = int(rng.integers(len(steps) + 1))
    return (*steps[:at], gene, *steps[at:])


def share(steps: Steps, choices: Choices, rng: Rng) -> Steps:
    """A step uses its neighbour's layer instead of its own (FoldGPT)."""
    if len(steps) < 2:
        return steps
    at = int(rng.integers(len(steps) - 1))
    return (*steps[: at + 1], replace(steps[at], scale=steps[at + 1].scale), *steps[at + 2 :])


def stack(steps: Steps, choices: Choices, rng: Rng) -> Steps:
    """The whole list twice (G_stack)."""
    return steps + steps


def truncate(steps: Steps, choices: Choices, rng: Rng) -> Steps:
    """Without the last one, two or three steps."""
    return steps[: max(1, len(steps) - int(rng.integers(1, SPAN + 1)))]


def transfer(steps: Steps, choices: Choices, rng: Rng) -> Steps:
    """A run of up to three steps takes the same layers from another model."""
    start, end = _span(steps, rng)
    model = int(rng.integers(choices.models))
    moved = tuple(replace(g, model=model) for g in steps[start:end])
    return steps[:start] + moved + steps[end:]


def rescale(steps: Steps, choices: Choices, rng: Rng) -> Steps:
    """One step's scale times e^ε, ε ~ N(0, 0.2²); within SCALES."""
    at = int(rng.integers(len(steps)))
    scale = float(np.clip(steps[at].scale * np.exp(0.2 * rng.standard_normal()), *SCALES))
    return (*steps[:at], replace(steps[at], scale=scale), *steps[at + 1 :])


Move: TypeAlias = Callable[[Steps, Choices, Rng], Steps]
MOVES: Final[Mapping[str, Move]] = MappingProxyType(
    {
        move.__name__: move
        for move in (drop, repeat, swap, insert, share, stack, truncate, transfer, rescale)
    }
)


def move(
    genes: PathGenes, names: Sequence[str], choices: Choices, rng: Rng, *, tries: int = 20
) -> tuple[PathGenes, str]:
    """``genes`` after one of the named moves, and its name; unchanged, "" where none led anywhere.

    Moves that give the same path, or one outside the limits of length, are drawn again.
    """
    for _ in range(tries):
        name = names[int(rng.integers(len(names)))]
        steps = MOVES[name](genes.steps, choices, rng)
        if steps != genes.steps and choices.shortest <= len(steps) <= choices.longest:
            return replace(genes, steps=steps), name
    return genes, ""


def cross(a: PathGenes, b: PathGenes, choices: Choices, rng: Rng) -> PathGenes:
    """The first part of one path, then the last part of the other, cut at the same share of both.

    The child has ``a``'s embedding and ``b``'s head. Cut to the longest length if it is longer.
    """
    share_of = float(rng.random())
    first = a.steps[: round(share_of * len(a.steps))]
    last = b.steps[round(share_of * len(b.steps)) :]
    steps = (first + last)[: choices.longest]
    if len(steps) < choices.shortest:
        return a
    return PathGenes(a.embed, steps, b.head)
