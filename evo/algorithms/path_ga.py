"""``path_ga`` and ``joint``: a genetic algorithm over paths, alone or together with merge coefficients.

Individuals are lists of steps; children are made by splicing two paths and by one of the moves of
:mod:`operators.variation.paths`. In ``joint`` an individual also has one task-vector weight for each founder:
the model merged with them is one more model that its steps may use, and the first path of all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from evo.algorithms.path_space import PathSearch, PathSettings, path_traits
from evo.algorithms.protocol import Candidate, Contest, Scored, Start, founder_candidates
from evo.algorithms.spec import AlgorithmSpec, Traits
from operators.recipe import Recipe
from operators.variation.crossover import choose_parents
from operators.variation.mutation import from_task_vectors
from operators.variation.paths import MOVES, PathGenes, cross, decode, fitted, move, own_path
from operators.variation.selection import select

Floats: TypeAlias = NDArray[np.float64]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
TRIES = 50  # for a child that was not tried before


class PathGASettings(PathSettings):
    """``influence``: drop layers of low block influence first and insert those of high influence. It costs
    one forward pass for each founder at the start.
    """

    name: Literal["path_ga"] = "path_ga"
    population: Annotated[int, Field(ge=2)] = 10
    children: Annotated[int, Field(ge=1)] = 10
    crossover_rate: Share = 0.3
    elite: Share = 0.5
    moves: tuple[str, ...] = tuple(MOVES)
    influence: bool = True

    @field_validator("moves")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or any(name not in MOVES for name in value):
            raise ValueError(f"moves must be some of {', '.join(MOVES)}, got {list(value)}")
        return value


class JointSettings(PathGASettings):
    """``weights_rate`` is the share of mutations of weights, by N(0, ``sigma``²) each; the rest is of paths."""

    name: Literal["joint"] = "joint"  # type: ignore[assignment]
    weights_rate: Share = 0.7
    sigma: Annotated[float, Field(gt=0.0, le=10.0)] = 0.15


@dataclass(frozen=True, slots=True)
class _Genotype:
    """A path, and the weights of the merged model, which is the last model; None without it."""

    path: PathGenes
    weights: tuple[float, ...] | None


class PathGA(PathSearch[None]):
    """Ask/tell for both. Generation 0 evaluates the founders."""

    def __init__(self, settings: PathGASettings, start: Start) -> None:
        super().__init__(settings, start)
        self._settings = settings
        self._joint = settings if isinstance(settings, JointSettings) else None
        self._genomes: dict[str, _Genotype] = {}
        self._choices = self._space.choices
        if self._joint:
            # Moves may choose layers of the merged model too; it is the last model.
            known = self._choices.influence
            more = None if known is None else np.vstack([known, known.mean(axis=0)])
            self._choices = replace(self._choices, models=self._choices.models + 1, influence=more)

    def ask(self) -> list[Candidate]:
        if self._generation < 0:
            for number, model in enumerate(self._space.models):
                self._genomes[model.id] = self._first(number)
            return founder_candidates(self._start)
        return [self._child() for _ in range(self._settings.children)]

    def tell(self, evaluations: Sequence[Scored]) -> None:
        known = [s for s in evaluations if s.candidate.id in self._genomes]
        members = {s.candidate.id: s for s in (*self._population, *known)}
        everyone = list(members.values())
        fitness = [s.fitness for s in everyone]
        kept = select(fitness, self._settings.population, self._rng, elite=self._settings.elite)
        self._end_generation([everyone[i] for i in kept])

    def contest(self, asked: int) -> Contest:
        """Children race for a place in the population."""
        alive = tuple(s.candidate.id for s in self._population)
        return Contest(self._settings.population, alive)

    def _first(self, number: int) -> _Genotype:
        layers = self._space.layers
        models, choices = len(self._space.models), self._choices
        own = own_path(models if self._joint else number, layers)
        path = fitted(own, choices.shortest, choices.longest)
        if not self._joint:
            return _Genotype(path, None)
        return _Genotype(path, tuple(float(i == number) for i in range(models)))

    def _child(self) -> Candidate:
        rng, population = self._rng, self._population
        fitness = [s.fitness for s in population]
        for _ in range(TRIES):
            chosen = choose_parents(fitness, rng)
            parents = [population[i].candidate for i in chosen]
            genome, operators = self._genomes[parents[0].id], []
            if len(parents) > 1 and rng.random() < self._settings.crossover_rate:
                genome, operators = self._cross(genome, self._genomes[parents[1].id]), ["crossover"]
            else:
                parents = parents[:1]
            genome, name = self._mutate(genome)
            operators += [name] if name else []
            recipe = self._recipe(genome)
            if recipe.id not in self._genomes:
                break
        self._genomes[recipe.id] = genome
        return Candidate(recipe, "+".join(operators), tuple(p.id for p in parents))

    def _cross(self, a: _Genotype, b: _Genotype) -> _Genotype:
        path = cross(a.path, b.path, self._choices, self._rng)
        if a.weights is None or b.weights is None:
            return _Genotype(path, None)
        share = float(self._rng.random())
        mixed = share * np.array(a.weights) + (1.0 - share) * np.array(b.weights)
        return _Genotype(path, tuple(float(w) for w in mixed))

    def _mutate(self, genome: _Genotype) -> tuple[_Genotype, str]:
        joint, rng = self._joint, self._rng
        if joint and genome.weights is not None and rng.random() < joint.weights_rate:
            change = rng.normal(0.0, joint.sigma, len(genome.weights))
            weights = tuple(float(w) for w in np.array(genome.weights) + change)
            return replace(genome, weights=weights), "weights"
        path, name = move(genome.path, self._settings.moves, self._choices, rng)
        return replace(genome, path=path), name

    def _recipe(self, genome: _Genotype) -> Recipe:
        models = self._space.models
        if genome.weights is not None:
            merged = from_task_vectors(models, self._start.base, np.array(genome.weights))
            models = (*models, merged)
        return decode(genome.path, models, self._space.layers)


def _traits(settings: PathGASettings) -> Traits:
    return path_traits(settings, influence=settings.influence)


PATH_GA = AlgorithmSpec(PathGASettings, PathGA, _traits)
JOINT = AlgorithmSpec(JointSettings, PathGA, _traits)
