"""Search over genes in stages: the founders, then coarse genes, then finer ones from the best."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from evo.algorithms.gene_space import GeneSettings, gene_space
from evo.algorithms.genes import GeneSpace, Vector
from evo.algorithms.optimizers import Optimizer, Proposal, Trial
from evo.algorithms.population_search import PopulationSearch
from evo.algorithms.protocol import Candidate, Contest, Scored, Start, founder_candidates
from evo.errors import EvoError
from operators.recipe import Merge
from operators.variation.crossover import proportions
from operators.variation.selection import ranking

Origin: TypeAlias = Literal["uniform", "fitness"] | float


# (x0, steps, seed) -> optimizer; see evo.algorithms.optimizers
NewOptimizer: TypeAlias = Callable[[Vector, Vector, int], Optimizer]


@dataclass(frozen=True, slots=True)
class Stage:
    """One part of a search.

    ``evaluations`` is the least number after which the next stage starts from the best point; None for
    the last stage, which never ends.
    """

    methods: tuple[str, ...]
    settings: GeneSettings
    new: NewOptimizer
    evaluations: int | None = None


class GeneSearch(PopulationSearch[Proposal]):
    """Ask/tell. Generation 0 evaluates the founders; each later one is a population of an optimizer.

    An optimizer that has converged is started again from the best point found. Candidates in flight at
    that time, or at the end of a stage, teach the next optimizer nothing.

    Args:
        start: founders, base and seed.
        stages: at least one; the last one has no limit.
        operator: the operator that candidates name.
        origin: where weights start: 1/n each, in proportion to the founders' fitness, or a number.
        penalty: times the mean absolute weight, subtracted from the fitness that optimizers see.

    Raises:
        EvoError: the methods don't take these founders or settings (see :func:`gene_space`), or there is
            a penalty and no weights.
    """

    def __init__(
        self,
        start: Start,
        stages: Sequence[Stage],
        *,
        operator: str,
        origin: Origin,
        penalty: float = 0.0,
    ) -> None:
        super().__init__(start)
        self._operator, self._origin, self._penalty = operator, origin, penalty
        # All stages now, so that a mistake in any of them is found before anything runs.
        self._spaces = [gene_space(s.methods, s.settings, start) for s in stages]
        if penalty and any("weight" not in [p.name for p in s.parts] for s in self._spaces):
            raise EvoError("algorithm.penalty: no weights are searched; set penalty to 0")
        self._stages = list(stages)
        self._optimizer: Optimizer | None = None
        self._batch = 0  # trials that the optimizer learns from at a time
        self._best_x: Vector = np.empty(0)  # in the unit cube of the stage's space
        self._best_fitness = -math.inf
        self._spent = 0

    def ask(self) -> list[Candidate]:
        if self.generation < 0:
            return founder_candidates(self._start)
        limit = self._stages[0].evaluations
        if limit is not None and self._spent >= limit:
            self._next_stage()
        space = self._spaces[0]
        if self._optimizer is None or self._optimizer.converged:
            seed = int(self._rng.integers(2**31))
            self._optimizer = self._stages[0].new(self._best_x, space.unit_steps, seed)
            self._buffer.drop_outcomes()
            self._buffer.drop_sources()
        proposals = self._optimizer.ask()
        self._batch = len(proposals)
        return self._candidates(space, proposals)

    def tell(self, evaluations: Sequence[Scored]) -> None:
        trials = [self._penalised(t) for t in self._buffer.take(evaluations)]
        self._end_generation(evaluations)
        if self.generation == 0:
            self._begin(evaluations)
        elif self._optimizer is not None:
            self._spent += len(evaluations)
            for trial in trials:
                if trial.fitness > self._best_fitness:
                    self._best_x, self._best_fitness = trial.source.x, trial.fitness
            for batch in self._buffer.batches(trials, self._batch):
                self._optimizer.tell(batch)

    def contest(self, asked: int) -> Contest:
        """To be the best of the round: an optimizer steers well by estimates of the others."""
        return Contest(1)

    def _candidates(self, space: GeneSpace, proposals: Sequence[Proposal]) -> list[Candidate]:
        """The recipes at the proposed points, each once.

        The parent of a proposal that names none is the best of the last generation.
        """
        best = tuple(s.candidate.id for s in self._population[:1])
        made: dict[str, Candidate] = {}
        for proposal in proposals:
            recipe = space.decode(space.from_unit(proposal.x))
            seed = recipe.seed if isinstance(recipe, Merge) else 0
            self._buffer.add(recipe.id, proposal)
            parents = proposal.parents or best
            made.setdefault(recipe.id, Candidate(recipe, self._operator, parents, seed))
        return list(made.values())

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
        if not self._penalty:
            return trial
        space = self._spaces[0]
        weights = space.values(space.from_unit(trial.source.x))["weight"]
        loss = self._penalty * float(np.abs(weights).mean())
        return replace(trial, fitness=trial.fitness - loss)
