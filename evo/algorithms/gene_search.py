"""Search over genes in stages: the founders, then coarse genes, then finer ones from the best."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

import numpy as np

from evo.algorithms.gene_space import GeneSettings, gene_space
from evo.algorithms.genes import GeneSpace, Vector
from evo.algorithms.optimizers import Optimizer, Trial
from evo.algorithms.protocol import Candidate, Contest, Scored, Start
from evo.algorithms.steady import Steady
from evo.algorithms.trials import SearchState
from operators.variation.crossover import proportions
from operators.variation.selection import ranking

Origin: TypeAlias = Literal["uniform", "fitness"] | float


class NewOptimizer(Protocol):
    """Starts an optimizer at ``x0`` of the unit cube; ``steps`` are those of whole numbers, else 0."""

    def __call__(self, x0: Vector, steps: Vector, seed: int) -> Optimizer: ...


@dataclass(frozen=True, slots=True)
class Stage:
    """One part of a search.

    ``evaluations``: how many it asks for at least, after which the next stage goes on from the best
    point; None in the last stage, which never ends.
    """

    methods: tuple[str, ...]
    settings: GeneSettings
    new: NewOptimizer
    evaluations: int | None = None


class GeneSearch(Steady):
    """Ask/tell. Generation 0 evaluates the founders; each later one is a population of an optimizer.

    An optimizer that has converged starts again from the best point found. What is in flight then, or at
    the end of a stage, is of no use to the next optimizer. ``penalty`` is subtracted from the fitness
    that optimizers are told. ``origin`` is where weights start: 1/n each, in proportion to the
    founders' fitness, or a number.

    Raises:
        EvoError: the methods don't take these founders or settings; see :func:`gene_space`.
    """

    def __init__(
        self,
        start: Start,
        stages: Sequence[Stage],
        *,
        operator: str,
        origin: Origin,
        penalty: Callable[[GeneSpace, Vector], float] | None = None,
    ) -> None:
        super().__init__()
        self._start = start
        self._operator, self._origin, self._penalty = operator, origin, penalty
        self._rng = np.random.default_rng(start.seed)
        self._trials = SearchState(start)
        # Made now, so that what is wrong with any stage is known before anything runs.
        self._spaces = [gene_space(s.methods, s.settings, start) for s in stages]
        self._stages = list(stages)
        self._optimizer: Optimizer | None = None
        self._batch = 0  # trials that the optimizer is told at a time
        self._heard: list[Trial] = []  # that it was not told yet
        self._best_x: Vector = np.empty(0)  # in the unit cube of the stage's space
        self._best_fitness = -math.inf
        self._spent = 0

    @property
    def generation(self) -> int:
        return self._trials.generation

    @property
    def population(self) -> tuple[Scored, ...]:
        return self._trials.population

    def ask(self) -> list[Candidate]:
        if self.generation < 0:
            return list(self._trials.founders)
        limit = self._stages[0].evaluations
        if limit is not None and self._spent >= limit:
            self._next_stage()
        space = self._spaces[0]
        if self._optimizer is None or self._optimizer.converged:
            seed = int(self._rng.integers(2**31))
            self._optimizer = self._stages[0].new(self._best_x, space.unit_steps, seed)
            self._heard = []
            self._trials.forget()
        proposals = self._optimizer.ask()
        self._batch = len(proposals)
        return self._trials.candidates(space, proposals, self._operator)

    def tell(self, evaluations: Sequence[Scored]) -> None:
        trials = self._trials.end_generation(evaluations)
        if self.generation == 0:
            self._begin(evaluations)
        elif self._optimizer is not None:
            self._spent += len(evaluations)
            for trial in map(self._penalised, trials):
                self._heard.append(trial)
                if trial.fitness > self._best_fitness:
                    self._best_x, self._best_fitness = trial.x, trial.fitness
            while len(self._heard) >= self._batch:
                self._optimizer.tell(self._heard[: self._batch])
                del self._heard[: self._batch]

    def contest(self, asked: int) -> Contest:
        """To be the best of the round: an optimizer steers well by estimates of the others."""
        return Contest(1)

    def _begin(self, evaluations: Sequence[Scored]) -> None:
        """Choose the start, and the best founders where the methods take fewer than there are."""
        fitness = {s.candidate.id: s.fitness for s in evaluations}
        founders = tuple(dict.fromkeys(self._start.founders))
        if len(self._spaces[0].founders) < len(founders):
            order = ranking([fitness[f.id] for f in founders])
            best = replace(self._start, founders=tuple(founders[i] for i in order))
            self._spaces = [gene_space(s.methods, s.settings, best) for s in self._stages]
        space = self._spaces[0]
        weights = self._weights([fitness[f.id] for f in space.founders])
        self._best_x = space.to_unit(space.encode({"weight": weights[:, None]}))

    def _weights(self, fitness: Sequence[float]) -> Vector:
        match self._origin:
            case "fitness" if any(math.isfinite(f) for f in fitness):
                return proportions(fitness)
            case "fitness" | "uniform":
                return np.full(len(fitness), 1.0 / len(fitness))
            case number:
                return np.full(len(fitness), number)

    def _next_stage(self) -> None:
        last, self._spaces = self._spaces[0], self._spaces[1:]
        self._stages, self._spent = self._stages[1:], 0
        space = self._spaces[0]
        self._best_x = space.to_unit(space.encode(last.values(last.from_unit(self._best_x))))
        self._optimizer = None

    def _penalised(self, trial: Trial) -> Trial:
        if self._penalty is None:
            return trial
        space = self._spaces[0]
        return replace(
            trial, fitness=trial.fitness - self._penalty(space, space.from_unit(trial.x))
        )
