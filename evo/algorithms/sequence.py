"""``sequence``: one search after the other; the best of each joins the founders of the next.

Merging in both spaces (arXiv 2403.13187, section 3.3) is ``recipe_search`` and then ``dataflow``, whose
paths may use the layers of the merged model too. The individual that joins is the best one that is not a
path: a path has no weights to merge, and can't be a step of another path.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo, model_validator

from evo.algorithms.dataflow import DataflowSettings
from evo.algorithms.protocol import (
    Algorithm,
    Candidate,
    Contest,
    Scored,
    Start,
    SteadyAlgorithm,
    contest_in,
)
from evo.algorithms.recipe_search import RecipeSearchSettings
from evo.algorithms.spec import AlgorithmSettings
from evo.errors import EvoError
from operators.recipe import Route

# A small population of genome may have no children for some rounds: that is no reason to end a stage.
IDLE_ROUNDS = 10  # asks in a row without a new candidate, after which a stage ends
IDLE_EVALUATIONS = 100  # the same in a steady state: evaluations in a row of known candidates


def _stage(value: Any, info: ValidationInfo) -> AlgorithmSettings:
    from evo.algorithms import read_settings  # the table has the sequence in it

    settings = read_settings(value, context=info.context)
    if settings.name == "sequence":
        raise EvoError("a sequence can't be a stage of a sequence; list its stages")
    return settings


class SequenceSettings(AlgorithmSettings):
    """``stages`` are algorithms by name or with their settings, as ``algorithm`` itself takes them.
    ``evaluations`` is the number for each stage but the last; by default all stages get the same share
    of the budget.
    """

    name: Literal["sequence"] = "sequence"
    stages: Annotated[
        tuple[Annotated[SerializeAsAny[AlgorithmSettings], BeforeValidator(_stage)], ...],
        Field(min_length=2),
    ] = (RecipeSearchSettings(), DataflowSettings())
    evaluations: tuple[Annotated[int, Field(ge=1)], ...] = ()

    @model_validator(mode="after")
    def _checked(self) -> "SequenceSettings":
        if self.evaluations and len(self.evaluations) != len(self.stages) - 1:
            raise ValueError(
                f"evaluations: {len(self.evaluations)} numbers for {len(self.stages)} stages; "
                "give one for each stage but the last"
            )
        return self


class Stages:
    """Ask/tell. A stage ends between two asks, once its evaluations are spent or nothing new comes.

    In a steady state a stage asks for no more than its evaluations, and the next one starts from the best
    of them when all are evaluated. Only there does such a run wait.

    Raises:
        EvoError: a stage refuses the founders or its settings, or nothing is left for the last one.
    """

    def __init__(
        self,
        settings: SequenceSettings,
        start: Start,
        make: Callable[[AlgorithmSettings, Start], Algorithm],
    ) -> None:
        self._stages = settings.stages
        self._start = start
        self._make = make
        spent, budget = sum(settings.evaluations), start.evaluations
        if budget is not None and settings.evaluations and spent >= budget:
            raise EvoError(
                f"algorithm.evaluations: {spent} for all stages but the last leave it nothing of "
                f"budget.evaluations, {budget}"
            )
        share = max(1, (budget or 300) // len(settings.stages))
        self._limits = settings.evaluations or (share,) * (len(settings.stages) - 1)
        self._number = 0
        self._finished = 0  # generations of the stages before
        self._scored: dict[str, Scored] = {}
        self._spent_before = 0
        self._idle = 0
        self._asked: set[str] = set()  # what was asked one by one
        self._in_flight = 0
        # All stages now, so that a mistake in any of them is found before anything runs.
        made = [self._made(number, start) for number in range(len(self._stages))]
        self._stage = made[0]

    @property
    def generation(self) -> int:
        return self._finished + self._stage.generation

    @property
    def population(self) -> tuple[Scored, ...]:
        return self._stage.population

    def ask(self) -> list[Candidate]:
        if self._is_over(len(self._scored), IDLE_ROUNDS):
            self._advance()
        return self._stage.ask()

    def tell(self, evaluations: Sequence[Scored]) -> None:
        self._remember(evaluations)
        self._stage.tell(evaluations)

    def contest(self, asked: int) -> Contest:
        return contest_in(self._stage, asked)

    def ask_one(self) -> Candidate | None:
        over = self._is_over(len(self._asked), IDLE_EVALUATIONS)
        candidate = None if over else self._steady.ask_one()
        if candidate is None and self._in_flight == 0 and self._number < len(self._limits):
            self._advance()
            candidate = self._steady.ask_one()
        if candidate is not None:
            self._asked.add(candidate.id)
            self._in_flight += 1
        return candidate

    def tell_one(self, evaluation: Scored) -> None:
        self._in_flight -= 1
        self._remember([evaluation])
        self._steady.tell_one(evaluation)

    @property
    def _steady(self) -> SteadyAlgorithm:
        if not isinstance(self._stage, SteadyAlgorithm):
            raise EvoError(
                f"algorithm.stages[{self._number}]: {self._stages[self._number].name} has no ask_one and "
                "tell_one, which loop: steady_state needs; set loop: generational"
            )
        return self._stage

    def _is_over(self, spent: int, patience: int) -> bool:
        """Whether the stage ends and another follows; ``spent`` counts the evaluations of all stages."""
        if self._number == len(self._limits):
            return False
        limit = self._limits[self._number]
        return spent - self._spent_before >= limit or self._idle >= patience

    def _remember(self, evaluations: Sequence[Scored]) -> None:
        new = any(s.candidate.id not in self._scored for s in evaluations)
        self._idle = 0 if new else self._idle + 1
        self._scored |= {s.candidate.id: s for s in evaluations}

    def _advance(self) -> None:
        fitness = {
            s.candidate.recipe: s.fitness
            for s in self._scored.values()
            if math.isfinite(s.fitness) and not isinstance(s.candidate.recipe, Route)
        }
        founders = self._start.founders
        if fitness:
            founders = tuple(dict.fromkeys((*founders, max(fitness, key=lambda r: fitness[r]))))
        self._number += 1
        self._idle = 0
        self._spent_before = len(self._scored)
        self._finished = self.generation + 1
        # Each stage draws from a seed of its own, so that stages of one kind differ.
        seed = int(np.random.SeedSequence([self._start.seed, self._number]).generate_state(1)[0])
        self._stage = self._made(self._number, replace(self._start, founders=founders, seed=seed))

    def _made(self, number: int, start: Start) -> Algorithm:
        try:
            return self._make(self._stages[number], start)
        except EvoError as error:
            raise EvoError(
                f"algorithm.stages[{number}], {self._stages[number].name}: {error}"
            ) from error
