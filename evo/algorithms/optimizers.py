"""Optimizers: points of the unit cube in, fitness back. They know nothing of genes or recipes.

All maximise and draw from their own seeded generator. The constructors of all take ``x0``, the first mean,
and ``steps``, the least change of each coordinate, 0 where it is not a whole number; both of shape (genes,).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from cmaes import CMA, CMAwM, SepCMA
from numpy.typing import NDArray

from evo.algorithms.buffer import Outcome

Vector = NDArray[np.float64]
NARROW = 1e-4  # of the unit cube: nothing is left to explore
WHOLE = 0.5  # first deviation of coordinates with a step: each value gets its try in the first generations


@dataclass(frozen=True, slots=True)
class Proposal:
    """A point to try, of shape (genes,), and the ids of the recipes that it was made from.

    ``raw`` and ``place`` are for the optimizer itself: the point before it was rounded to steps, and
    the member of its population that the point may replace.
    """

    x: Vector
    parents: tuple[str, ...] = ()
    raw: Vector = field(default_factory=lambda: np.empty(0))
    place: int = 0


Trial: TypeAlias = Outcome[Proposal]


class Optimizer(Protocol):
    """Proposes points and learns from their fitness: from as many at a time as one ask proposes."""

    @property
    def converged(self) -> bool:
        """Whether no better point is to be expected: start again."""
        ...

    def ask(self) -> list[Proposal]: ...

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn from a batch, whose proposals may be of earlier asks."""
        ...


class CmaEs:
    """CMA-ES: a normal distribution whose covariance follows the better half. Wraps one of `cmaes`.

    Population 4 + ⌊3 ln D⌋ by default. The best of the generation before counts as the parent of all.

    Source: Hansen 2016, arXiv 1604.00772.
    """

    def __init__(self, cma: CMA | CMAwM | SepCMA) -> None:
        self._cma = cma
        self._parents: tuple[str, ...] = ()

    @property
    def population(self) -> int:
        return int(self._cma.population_size)

    @property
    def converged(self) -> bool:
        return bool(self._cma.should_stop())

    def ask(self) -> list[Proposal]:
        return [self._proposal() for _ in range(self.population)]

    def tell(self, trials: Sequence[Trial]) -> None:
        self._cma.tell([(t.source.raw, -t.fitness) for t in trials])
        self._parents = (max(trials, key=lambda t: t.fitness).id,)

    def _proposal(self) -> Proposal:
        if isinstance(self._cma, CMAwM):
            x, raw = self._cma.ask()
            return Proposal(np.clip(x, 0.0, 1.0), self._parents, raw)
        x = self._cma.ask()
        return Proposal(x, self._parents, x)


def cma_es(
    x0: Vector, steps: Vector, seed: int, *, sigma: float, population: int | None = None
) -> CmaEs:
    """CMA-ES with margin over the unit cube.

    Coordinates with a step keep a least probability of leaving their current value.

    Source: Hamano et al. 2022, arXiv 2205.13482.
    """
    cube = np.tile([0.0, 1.0], (len(x0), 1))
    wide = np.where(steps > 0.0, max(WHOLE / sigma, 1.0), 1.0)
    return CmaEs(
        CMAwM(x0, sigma, cube, steps, seed=seed, population_size=population, cov=np.diag(wide**2))
    )


class CrossEntropy:
    """The cross-entropy method: mean and variance of the elite, one coordinate at a time.

    ``smoothing`` is the share of the new mean and deviation in the next ones. The elite are the parents.

    Source: Rubinstein 1999; de Boer et al. 2005, algorithm 3.
    """

    def __init__(
        self,
        x0: Vector,
        steps: Vector,
        seed: int,
        *,
        sigma: float,
        population: int,
        elite: float,
        smoothing: float,
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._mean, self._deviation = x0, np.full(len(x0), sigma)
        self._population, self._elite = population, max(2, round(elite * population))
        self._smoothing = smoothing
        self._parents: tuple[str, ...] = ()

    @property
    def converged(self) -> bool:
        return bool(self._deviation.max() < NARROW)

    def ask(self) -> list[Proposal]:
        draws = self._rng.normal(self._mean, self._deviation, (self._population, len(self._mean)))
        return [Proposal(x, self._parents) for x in np.clip(draws, 0.0, 1.0)]

    def tell(self, trials: Sequence[Trial]) -> None:
        elite = sorted(trials, key=lambda t: -t.fitness)[: self._elite]
        points, keep = np.stack([t.source.x for t in elite]), 1.0 - self._smoothing
        self._mean = keep * self._mean + self._smoothing * points.mean(axis=0)
        self._deviation = keep * self._deviation + self._smoothing * points.std(axis=0, ddof=1)
        self._parents = tuple(dict.fromkeys(t.id for t in elite))


class DifferentialEvolution:
    """DE/current-to-best/1/bin: v = x + F·(best − x) + F·(a − b), mixed into x gene by gene.

    The first generation is drawn around ``x0``. A child replaces the member at its parent's place unless
    it is worse. A coordinate beyond the cube is set halfway between its parent and the edge. ``F`` is drawn for each child from the range ``factor``; ``crossover`` is the share of genes that
    come from v.

    Source: Storn & Price 1997; Price, Storn & Lampinen 2005, chapters 2 and 4.
    """

    def __init__(
        self,
        x0: Vector,
        steps: Vector,
        seed: int,
        *,
        sigma: float,
        population: int,
        factor: tuple[float, float],
        crossover: float,
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._x0, self._sigma, self._population = x0, sigma, population
        self._factor, self._crossover = factor, crossover
        self._trials: list[Trial] = []

    @property
    def converged(self) -> bool:
        points = [t.source.x for t in self._trials]
        return bool(points) and bool(np.ptp(points, axis=0).max() < NARROW)

    def ask(self) -> list[Proposal]:
        if not self._trials:
            shape = (self._population, len(self._x0))
            first = self._rng.normal(self._x0, self._sigma, shape).clip(0.0, 1.0)
            return [Proposal(x, place=i) for i, x in enumerate(first)]
        best = max(self._trials, key=lambda t: t.fitness)
        return [self._child(i, best) for i in range(len(self._trials))]

    def tell(self, trials: Sequence[Trial]) -> None:
        if not self._trials:
            self._trials = list(trials)
            return
        for trial in trials:
            if trial.fitness >= self._trials[trial.source.place].fitness:
                self._trials[trial.source.place] = trial

    def _child(self, at: int, best: Trial) -> Proposal:
        rng, x = self._rng, self._trials[at].source.x
        others = [t for i, t in enumerate(self._trials) if i != at]
        a, b = (others[int(i)] for i in rng.choice(len(others), size=2, replace=False))
        factor = rng.uniform(*self._factor)
        mutant = x + factor * (best.source.x - x) + factor * (a.source.x - b.source.x)
        mutant = np.where(mutant < 0.0, x / 2.0, np.where(mutant > 1.0, (x + 1.0) / 2.0, mutant))
        taken = rng.random(len(x)) < self._crossover
        taken[rng.integers(len(x))] = True
        parents = (self._trials[at].id, best.id, a.id, b.id)
        return Proposal(np.where(taken, mutant, x), tuple(dict.fromkeys(parents)), place=at)
