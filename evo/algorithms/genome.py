"""``genome`` and ``genome_plus``: crossover, mutation, selection and (plus) succession.

Source: arXiv 2503.01155, section 3; the order of steps within a generation is that of the authors'
released code: succession, then crossover and mutation, then selection.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from evo.algorithms.population_search import PopulationSearch
from evo.algorithms.protocol import Candidate, Contest, Scored, Start, founder_candidates
from evo.algorithms.spec import AlgorithmSettings, AlgorithmSpec, Traits
from operators.merge import MERGES
from operators.recipe import Recipe, Terms, linear
from operators.variation.crossover import AVERAGE, choose_parents, crossover, merits
from operators.variation.mutation import perturb, perturb_coefficients
from operators.variation.selection import ranking, select
from operators.variation.succession import Pull, difference, succeed

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, le=100.0)]
TRIES = (
    100  # rounds without children, which are likely in small populations, before none is offered
)


class GenomeSettings(AlgorithmSettings):
    """GENOME's published settings (sections 3.1 to 3.4).

    With ``genes: coefficients`` mutation acts on the task-vector weights of the founders, and ``sigma``
    and ``gene_mutation_rate`` default to 0.15 and 0.3. ``init: pairs`` starts from random averages of two
    founders.
    """

    name: Literal["genome"] = "genome"
    population: Annotated[int, Field(ge=2)] = 10
    init: Literal["founders", "pairs"] = "founders"
    genes: Literal["weights", "coefficients"] = "weights"
    layer_groups: Annotated[int, Field(ge=1)] = 1
    crossover: str = AVERAGE
    crossover_rate: Share = 0.3
    individual_mutation_rate: Share = 0.3
    gene_mutation_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    sigma: Positive = 0.001
    elite: Share = 0.1

    @model_validator(mode="before")
    @classmethod
    def _coefficient_defaults(cls, data: object) -> object:
        if isinstance(data, dict) and data.get("genes") == "coefficients":
            return {"sigma": 0.15, "gene_mutation_rate": 0.3} | data
        return data

    @model_validator(mode="after")
    def _known_crossover(self) -> "GenomeSettings":
        two = [m for m, e in MERGES.items() if e.inputs[0] <= 2 and e.inputs[1] in (2, None)]
        if self.crossover not in (AVERAGE, *two):
            raise ValueError(f"crossover must be one of {AVERAGE}, {', '.join(two)}")
        if self.layer_groups > 1 and self.genes == "weights":
            raise ValueError("layer_groups needs genes: coefficients")
        return self


class GenomePlusSettings(GenomeSettings):
    """GENOME+ adds succession (``step`` is λ, ``step_decay`` φ_λ) and an ensemble of ``ensemble``."""

    name: Literal["genome_plus"] = "genome_plus"  # type: ignore[assignment]
    step: Positive = 0.5
    step_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    inertia: Annotated[float, Field(ge=0.0)] = 0.2
    cognitive: Annotated[float, Field(ge=0.0)] = 0.2
    social: Annotated[float, Field(ge=0.0)] = 0.2
    repel: Annotated[float, Field(ge=0.0)] = 0.1
    ensemble: Annotated[int, Field(ge=0)] = 3


@dataclass(frozen=True, slots=True)
class _Particle:
    """An individual with the memory that succession needs: velocity and personal best."""

    scored: Scored
    velocity: Terms
    best: Scored

    @property
    def recipe(self) -> Recipe:
        return self.scored.candidate.recipe


@dataclass(frozen=True, slots=True)
class _Move:
    """A move in flight: the individual that moves, the id of its new recipe, and its velocity."""

    particle: _Particle
    target: str
    velocity: Terms


class GenomeSearch(PopulationSearch[None]):
    """Ask/tell for both. A generation of GENOME+ takes two asks: the moves, then the children. In a
    steady state it takes one, in which the parents are the individuals before their moves.

    A failed individual (NaN fitness) is never a parent and does not survive. A failed move leaves the
    individual as it was. A move evaluated after its individual moved elsewhere, or was not selected,
    counts as a child.
    """

    def __init__(self, settings: GenomeSettings, start: Start) -> None:
        super().__init__(start)
        self._settings = settings
        self._plus = settings if isinstance(settings, GenomePlusSettings) else None
        self._step = self._plus.step if self._plus else 0.0
        self._particles: list[_Particle] = []
        self._best: Scored | None = None
        self._worst: Scored | None = None
        self._phase: Literal["start", "succession", "children"] = "start"
        self._moves: list[_Move] = []  # in flight

    @property
    def population(self) -> tuple[Scored, ...]:
        order = ranking([p.scored.fitness for p in self._particles])
        return tuple(self._particles[i].scored for i in order)

    def ask(self) -> list[Candidate]:
        match self._phase:
            case "start":
                return self._first()
            case "succession":
                return self._move()
            case "children":
                return self._children()

    def tell(self, evaluations: Sequence[Scored]) -> None:
        for scored in evaluations:
            self._remember(scored)
        match self._phase:
            case "start":
                self._survive(self._new_particles(evaluations))
            case "succession":
                self._apply_moves(evaluations)
                self._phase = "children"
            case "children":
                rest = self._apply_moves(evaluations)
                self._survive([*self._particles, *self._new_particles(rest)])

    def contest(self, asked: int) -> Contest:
        """Children race for a place in the population. A moved individual stays whatever its fitness."""
        if self._phase != "children":
            return Contest(asked)
        alive = tuple(p.scored.candidate.id for p in self._particles)
        return Contest(self._settings.population, alive)

    def _round(self) -> list[Candidate]:
        if self._generation < 0:
            return self._first()
        self._phase = "children"
        if self._plus:
            return [*self._move(), *self._children()]
        return next(filter(None, (self._children() for _ in range(TRIES))), [])

    def _first(self) -> list[Candidate]:
        founders = founder_candidates(self._start)
        if self._settings.init == "founders":
            return founders
        chosen: dict[str, Candidate] = {}
        # Shuffled pairs, each with its own random weight; equal pairs differ by their weight.
        while len(chosen) < self._settings.population:
            order = self._rng.permutation(len(founders))
            for a, b in zip(order[::2], order[1::2], strict=False):
                weight = float(self._rng.random())
                pair = linear({founders[a].recipe: weight, founders[b].recipe: 1.0 - weight})
                chosen[pair.id] = Candidate(pair, "pair", (founders[a].id, founders[b].id))
        return list(chosen.values())[: self._settings.population]

    def _move(self) -> list[Candidate]:
        plus, best, worst = self._plus, self._best, self._worst
        if plus is None or best is None or worst is None:
            raise RuntimeError("succession before any individual was evaluated")
        pull = Pull(plus.inertia, plus.cognitive, plus.social, plus.repel)
        moved: dict[str, Candidate] = {}
        for particle in self._particles:
            recipe, velocity = succeed(
                particle.recipe,
                particle.velocity,
                personal_best=particle.best.candidate.recipe,
                global_best=best.candidate.recipe,
                global_worst=worst.candidate.recipe,
                pull=pull,
                step=self._step,
                rng=self._rng,
            )
            parents = (particle.scored, particle.best, best, worst)
            ids = tuple(dict.fromkeys(s.candidate.id for s in parents))
            moved.setdefault(recipe.id, Candidate(recipe, "succession", ids))
            self._moves.append(_Move(particle, recipe.id, velocity))
        self._step *= plus.step_decay  # once per generation
        return list(moved.values())

    def _apply_moves(self, evaluations: Sequence[Scored]) -> list[Scored]:
        """Replace individuals by their moves. Returns the evaluations that are of no move."""
        scored_by_id = {s.candidate.id: s for s in evaluations}
        places = {id(particle): i for i, particle in enumerate(self._particles)}
        applied = set()
        for move in (m for m in self._moves if m.target in scored_by_id):
            place, scored = places.pop(id(move.particle), None), scored_by_id[move.target]
            if place is not None:
                self._particles[place] = _moved(move, scored)
                applied.add(move.target)
        self._moves = [m for m in self._moves if m.target not in scored_by_id]
        return [s for s in evaluations if s.candidate.id not in applied]

    def _children(self) -> list[Candidate]:
        settings, rng = self._settings, self._rng
        fitness = [p.scored.fitness for p in self._particles]
        merit = [float(m) for m in merits(fitness)]
        children: list[Candidate] = []
        for _ in range(settings.population // 2):
            if rng.random() >= settings.crossover_rate:
                continue
            chosen = choose_parents(fitness, rng)
            seed = int(rng.integers(2**63))
            if len({self._particles[i].recipe for i in chosen}) < 2:
                continue  # two equal individuals have nothing to cross
            children.append(self._cross(chosen, merit, seed))
        members = [p.scored.candidate for p in self._particles]
        mutants = [
            self._mutate(candidate)
            for candidate in (*members, *children)
            if rng.random() < settings.individual_mutation_rate
        ]
        known = {m.id for m in members}
        unique = {c.id: c for c in (*children, *mutants) if c.id not in known}
        return list(unique.values())

    def _cross(self, chosen: Sequence[int], merit: Sequence[float], seed: int) -> Candidate:
        parents = [self._particles[i].recipe for i in chosen]
        child = crossover(
            parents,
            [merit[i] for i in chosen],
            method=self._settings.crossover,
            base=self._start.base,
            seed=seed,
        )
        return Candidate(
            child, f"crossover:{self._settings.crossover}", tuple(p.id for p in parents), seed
        )

    def _mutate(self, parent: Candidate) -> Candidate:
        settings = self._settings
        seed = int(self._rng.integers(2**63))
        if settings.genes == "weights":
            child = perturb(
                parent.recipe, sigma=settings.sigma, rate=settings.gene_mutation_rate, seed=seed
            )
        else:
            child = perturb_coefficients(
                parent.recipe,
                self._start.founders,
                self._start.base,
                np.random.default_rng(seed),
                sigma=settings.sigma,
                rate=settings.gene_mutation_rate,
                groups=settings.layer_groups,
            )
        return Candidate(child, f"mutation:{settings.genes}", (parent.id,), seed)

    def _new_particles(self, evaluations: Sequence[Scored]) -> list[_Particle]:
        known = {p.scored.candidate.id for p in self._particles}
        alive = [s for s in evaluations if math.isfinite(s.fitness) and s.candidate.id not in known]
        recipes = [p.recipe for p in self._particles] + [s.candidate.recipe for s in alive]
        return [_Particle(s, self._first_velocity(s.candidate.recipe, recipes), s) for s in alive]

    def _first_velocity(self, recipe: Recipe, recipes: Sequence[Recipe]) -> Terms:
        """v₀ = x_j − x_i with j another individual at random (Model Swarms; also GENOME+'s released code)."""
        others = [r for r in recipes if r != recipe]
        if self._plus is None or not others:
            return ()
        return difference(others[int(self._rng.integers(len(others)))], recipe)

    def _survive(self, particles: Sequence[_Particle]) -> None:
        fitness = [p.scored.fitness for p in particles]
        kept = select(fitness, self._settings.population, self._rng, elite=self._settings.elite)
        self._particles = [particles[i] for i in kept]
        self._generation += 1
        self._phase = "succession" if self._plus else "children"

    def _remember(self, scored: Scored) -> None:
        if not math.isfinite(scored.fitness):
            return
        if self._best is None or scored.fitness > self._best.fitness:
            self._best = scored
        if self._worst is None or scored.fitness < self._worst.fitness:
            self._worst = scored


def _moved(move: _Move, scored: Scored) -> _Particle:
    if not math.isfinite(scored.fitness):
        return replace(move.particle, velocity=())
    best = scored if scored.fitness > move.particle.best.fitness else move.particle.best
    return _Particle(scored, move.velocity, best)


def _traits(settings: GenomeSettings) -> Traits:
    return Traits(methods=(settings.crossover,))


def _plus_traits(settings: GenomePlusSettings) -> Traits:
    return Traits(methods=(settings.crossover,), voters=settings.ensemble)


GENOME = AlgorithmSpec(GenomeSettings, GenomeSearch, _traits)
GENOME_PLUS = AlgorithmSpec(GenomePlusSettings, GenomeSearch, _plus_traits)
