"""``dataflow``: search for which layer comes next, among all layers of all models, repeated r times.

Slots, indicator and scales as in arXiv 2403.13187, section 3.2. The first path is the best founder's own.
Three ways to search:

- ``flat``: CMA-ES over indicators and scales together, as published.
- ``structured``: indicators by bit flips of the best path, scales by CMA-ES over the steps that it has,
  in turns (SCIENCE.md section 2; arXiv 2605.12326). Slots that are not taken have no scales to search.
- ``random``: a few random flips of the best founder's path, with random scales of its steps and no
  selection: the baseline.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from cmaes import CMA
from pydantic import Field, model_validator

from evo.algorithms.buffer import Outcome
from evo.algorithms.flat_paths import Bits, FlatPaths, Floats
from evo.algorithms.optimizers import CmaEs, Proposal
from evo.algorithms.path_space import PathSearch, PathSettings, path_traits
from evo.algorithms.protocol import Candidate, Contest, Scored, Start, founder_candidates
from evo.algorithms.scales import LIMIT, Form
from evo.algorithms.spec import AlgorithmSpec
from evo.errors import EvoError
from operators.recipe import Recipe
from operators.variation.paths import PathGenes, Slots, decode

ALIKE = 0.8  # of the exchanges are for the same layer of another model
TRIES = 50  # for a path that was not tried before
TURNS = (6, 2)  # generations


class DataflowSettings(PathSettings):
    """``repeats`` is r. ``scales``: of each step, each pair of layers (matrix), by a small network, or
    none; only the flat search takes matrix and network. ``population`` is 4 + ⌊3 ln D⌋ by default (the
    paper: 128 for 100 generations). ``turns``, of the structured search alone, are the numbers of
    generations that search paths, then scales (6 and 2 by default).
    """

    name: Literal["dataflow"] = "dataflow"
    search: Literal["structured", "flat", "random"] = "structured"
    repeats: Annotated[int, Field(ge=1)] = 3
    scales: Form = "step"
    sigma0: Annotated[float, Field(gt=0.0, le=10.0)] = 1.0 / 6.0
    population: Annotated[int, Field(ge=4)] | None = None
    turns: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None

    @model_validator(mode="after")
    def _used(self) -> "DataflowSettings":
        if self.scales in ("matrix", "network") and self.search != "flat":
            raise ValueError(f"scales: {self.scales} needs search: flat")
        if self.turns and self.search != "structured":
            raise ValueError(f"turns needs search: structured; search: {self.search} takes none")
        return self


@dataclass(frozen=True, slots=True)
class _PathSource:
    """What a path was made from: its slots, and the proposal of ``optimizer`` or logarithms of scales."""

    taken: Bits
    proposal: Proposal
    optimizer: CmaEs | None = None


class Dataflow(PathSearch[_PathSource]):
    """Ask/tell for all three. Embedding and head are the best founder's.

    When the structured search takes another path, scales in flight for the old one are not learned from,
    unless they make the old path the best again.
    """

    def __init__(self, settings: DataflowSettings, start: Start) -> None:
        super().__init__(settings, start)
        self._settings = settings
        choices = self._space.choices
        self._slots = Slots(choices.models, choices.layers, settings.repeats)
        if choices.shortest > self._slots.count:
            raise EvoError(
                f"algorithm.min_length: {choices.shortest} is more than the {self._slots.count} layers of "
                f"{choices.models} models, {settings.repeats} times over; raise repeats"
            )
        self._owner = 0
        self._flat: FlatPaths | None = None
        self._taken: Bits = self._slots.own(0)
        self._logs: dict[int, float] = {}  # logarithms of the scales of the best path's slots
        self._best = -math.inf
        self._scales: CmaEs | None = None
        self._seen: set[str] = set()

    def ask(self) -> list[Candidate]:
        if self._generation < 0:
            return founder_candidates(self._start)
        parents = tuple(s.candidate.id for s in self._population[:1])
        match self._settings.search:
            case "flat":
                return self._ask_flat(parents)
            case "random":
                return [self._random() for _ in range(self._size())]
        if self._scales_turn():
            return self._ask_scales(parents)
        return [self._new_path(parents) for _ in range(self._size())]

    def tell(self, evaluations: Sequence[Scored]) -> None:
        self._seen.update(s.candidate.id for s in evaluations)
        if self._generation < 0:
            self._owner = self._best_model(evaluations)
            structured = self._settings.search == "structured"
            own = self._slots.own(self._owner, spread=structured)
            shortest = self._space.choices.shortest
            self._taken = self._slots.fitted(own, self._owner, shortest, self._longest())
            founder = self._space.models[self._owner]
            own_fitness = [s.fitness for s in evaluations if s.candidate.recipe == founder]
            if np.array_equal(self._taken, own):  # else the founder's fitness is not this path's
                self._best = max([f for f in own_fitness if math.isfinite(f)], default=-math.inf)
            if self._settings.search == "flat":
                self._flat = FlatPaths(
                    self._slots,
                    self._taken,
                    self._settings.scales,
                    self._seed(),
                    sigma=self._settings.sigma0,
                    population=self._settings.population,
                )
        elif self._flat is not None:
            outcomes = self._buffer.take(evaluations)
            # Proposals that gave the same path follow one another.
            first = {o.id: i for i, o in reversed(list(enumerate(outcomes)))}
            outcomes.sort(key=lambda o: first[o.id])
            self._teach(self._flat.optimizer, outcomes)
        elif self._settings.search == "structured":
            self._learn(evaluations)
        self._end_generation(evaluations)

    def contest(self, asked: int) -> Contest:
        """To be the best of the round: CMA-ES steers well by estimates of the others."""
        return Contest(1)

    def _learn(self, evaluations: Sequence[Scored]) -> None:
        outcomes = self._buffer.take(evaluations)
        if self._scales is not None:
            self._teach(self._scales, [o for o in outcomes if o.source.optimizer is self._scales])
        sources = {o.id: o.source for o in outcomes}
        for scored in evaluations:
            source = sources.get(scored.candidate.id)
            # Equal fitness too: drift among equal paths leads out of plateaus.
            if source and math.isfinite(scored.fitness) and scored.fitness >= self._best:
                self._best = scored.fitness
                if not np.array_equal(source.taken, self._taken):
                    self._scales = None
                    self._buffer.drop_outcomes()
                self._taken = source.taken
                slots = np.flatnonzero(source.taken).tolist()
                logs = source.proposal.x[: len(slots)].tolist()
                self._logs = dict(zip(slots, logs, strict=True))

    def _teach(self, optimizer: CmaEs, outcomes: Sequence[Outcome[_PathSource]]) -> None:
        for batch in self._buffer.batches(outcomes, optimizer.population):
            optimizer.tell([Outcome(o.id, o.source.proposal, o.fitness) for o in batch])

    def _scales_turn(self) -> bool:
        paths, scales = self._settings.turns or TURNS
        return self._settings.scales != "none" and self._generation % (paths + scales) >= paths

    def _ask_flat(self, parents: tuple[str, ...]) -> list[Candidate]:
        if self._flat is None:
            raise RuntimeError("ask before the founders' evaluations")
        candidates = []
        shortest = self._space.choices.shortest
        for proposal, taken, scales in self._flat.ask(shortest, self._longest()):
            recipe = self._recipe(taken, scales)
            self._buffer.add(recipe.id, _PathSource(taken, proposal))
            candidates.append(Candidate(recipe, "cma_es", parents))
        return candidates

    def _ask_scales(self, parents: tuple[str, ...]) -> list[Candidate]:
        slots = np.flatnonzero(self._taken)
        if self._scales is None:
            mean = np.array([self._logs.get(int(s), 0.0) for s in slots])
            # cmaes wants two dimensions at least: a path of one step has a scale that does nothing.
            mean = mean if len(mean) > 1 else np.append(mean, 0.0)
            cma = CMA(
                mean,
                self._settings.sigma0,
                bounds=np.tile([-LIMIT, LIMIT], (len(mean), 1)),
                population_size=self._settings.population,
                seed=self._seed(),
            )
            self._scales = CmaEs(cma)
        candidates = []
        for proposal in self._scales.ask():
            source = _PathSource(self._taken, proposal, self._scales)
            recipe = self._scaled(source)
            self._buffer.add(recipe.id, source)
            candidates.append(Candidate(recipe, "scales", parents))
        return candidates

    def _new_path(self, parents: tuple[str, ...]) -> Candidate:
        """The best path if it was not tried yet, else a variation of it that was not."""
        taken = self._taken
        for _ in range(TRIES):
            logs = np.array([self._logs.get(int(s), 0.0) for s in np.flatnonzero(taken)])
            source = _PathSource(taken, Proposal(logs))
            recipe = self._scaled(source)
            if recipe.id not in self._seen:
                break
            if (
                recipe.id in self._buffer
            ):  # other slots make the same path: they get its outcome too
                self._buffer.add(recipe.id, source)
            taken = self._flipped()
        self._seen.add(recipe.id)  # evaluations come only after the whole generation
        self._buffer.add(recipe.id, source)
        return Candidate(recipe, "flip", parents)

    def _random(self) -> Candidate:
        for _ in range(TRIES):
            taken = self._flipped()
            logs = np.zeros(int(taken.sum()))
            if self._settings.scales == "step":
                logs = np.clip(
                    self._rng.normal(0.0, self._settings.sigma0, len(logs)), -LIMIT, LIMIT
                )
            recipe = self._scaled(_PathSource(taken, Proposal(logs)))
            if recipe.id not in self._seen:
                break
        self._seen.add(recipe.id)
        return Candidate(recipe, "random")

    def _scaled(self, source: _PathSource) -> Recipe:
        steps = int(source.taken.sum())
        return self._recipe(source.taken, np.exp(source.proposal.x[:steps]))

    def _flipped(self) -> Bits:
        """The best path with some slots dropped, added or exchanged; unchanged if none fits the limits."""
        for _ in range(TRIES):
            taken = self._taken.copy()
            for _ in range(1 + int(self._rng.poisson(0.7))):
                self._flip(taken)
            if self._space.choices.shortest <= int(taken.sum()) <= self._longest():
                return taken
        return self._taken

    def _flip(self, taken: Bits) -> None:
        """Add a slot, drop one, or (half of the time) exchange one for another, in place.

        The new slot lies between the neighbours of the old one, so that the order of the other steps
        stays; most often it is the same layer of another model.
        """
        rng, kind = self._rng, int(self._rng.integers(4))
        inside, outside = np.flatnonzero(taken), np.flatnonzero(~taken)
        if kind == 0 and len(outside):
            taken[rng.choice(outside)] = True
        elif kind == 1 and len(inside) > 1:
            taken[rng.choice(inside)] = False
        elif len(inside):
            at = int(rng.integers(len(inside)))
            before = inside[at - 1] if at > 0 else -1
            after = inside[at + 1] if at + 1 < len(inside) else self._slots.count
            free = outside[(outside > before) & (outside < after)]
            alike = free[free % self._space.layers == inside[at] % self._space.layers]
            chosen = alike if len(alike) and rng.random() < ALIKE else free
            if len(chosen):
                taken[inside[at]] = False
                taken[rng.choice(chosen)] = True

    def _recipe(self, taken: Bits, scales: Sequence[float] | Floats) -> Recipe:
        steps = self._slots.steps(taken, list(scales))
        genes = PathGenes(self._owner, steps, self._owner)
        return decode(genes, self._space.models, self._space.layers)

    def _longest(self) -> int:
        return min(self._space.choices.longest, self._slots.count)

    def _size(self) -> int:
        return self._settings.population or 4 + math.floor(3 * math.log(self._slots.count))

    def _seed(self) -> int:
        return int(self._rng.integers(2**31))


DATAFLOW = AlgorithmSpec(DataflowSettings, Dataflow, path_traits)
