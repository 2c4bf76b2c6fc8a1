"""PathSpace: what data-flow searches search over: models, layers and limits of a path's length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from evo.algorithms.buffer import T
from evo.algorithms.population_search import PopulationSearch
from evo.algorithms.protocol import Scored, Start
from evo.algorithms.spec import AlgorithmSettings, Traits
from evo.errors import EvoError
from operators.recipe import Founder, Recipe
from operators.variation.paths import Choices
from operators.variation.selection import ranking


class PathSettings(AlgorithmSettings):
    """Common to all searches over paths.

    ``models`` are the founders whose layers are used (all by default). A path has from ``min_length`` to
    ``max_length`` steps (by default up to twice a founder's own). A founder's own path that is too long
    is cut, one that is too short is repeated, and the search starts there. ``length_penalty`` is what the
    fitness of a path on dev and select loses for each founder's length that it is longer than a
    founder, and gains where it is shorter: the search then prunes.
    """

    models: tuple[str, ...] = ()
    min_length: Annotated[int, Field(ge=1)] = 1
    max_length: Annotated[int, Field(ge=1)] | None = None
    length_penalty: Annotated[float, Field(ge=0.0)] = 0.0

    @field_validator("models")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"models: one is listed twice: {', '.join(value)}")
        return value


@dataclass(frozen=True, slots=True)
class PathSpace:
    """The models of a search, and its choices and limits with settings resolved."""

    models: tuple[Recipe, ...]
    choices: Choices

    @property
    def layers(self) -> int:
        return self.choices.layers


def path_space(settings: PathSettings, start: Start) -> PathSpace:
    """The space of ``settings`` over the run's founders.

    Raises:
        EvoError: an unknown founder, limits that exclude each other, or models without layers.
    """
    by_name = {f.name: f for f in start.founders if isinstance(f, Founder)}
    for name in settings.models:
        if name not in by_name:
            raise EvoError(
                f"algorithm.models: no founder is called {name!r}; there are {', '.join(by_name)}"
            )
    # The winners of earlier stages of a sequence are always used.
    winners = [f for f in start.founders if not isinstance(f, Founder)]
    models = (*(by_name[n] for n in settings.models or by_name), *winners)
    if start.layers < 1:
        raise EvoError("algorithm: the models have no layers that can be told apart by name")
    longest = settings.max_length or 2 * start.layers
    if longest < settings.min_length:
        raise EvoError(
            f"algorithm.max_length: {longest} is less than min_length, {settings.min_length}"
        )
    influence = None
    known = [start.influence[m.id] for m in models if m.id in start.influence]
    if known:
        # The influence of a merged model is not measured: the mean of the founders' stands for it.
        usual = tuple(np.mean(known, axis=0))
        influence = np.array([start.influence.get(m.id, usual) for m in models])
        # Hidden states that overflow give NaN: such a layer counts as one of most influence.
        influence = np.where(np.isfinite(influence), influence, 1.0)
    choices = Choices(len(models), start.layers, settings.min_length, longest, influence)
    return PathSpace(tuple(models), choices)


def path_traits(settings: PathSettings, **more: Any) -> Traits:
    """The traits that all searches over paths have, and ``more``."""
    return Traits(paths=True, length_penalty=settings.length_penalty, **more)


class PathSearch(PopulationSearch[T]):
    """A search over ``self._space``. Generation 0 evaluates the founders; later ones are a subclass's."""

    def __init__(self, settings: PathSettings, start: Start) -> None:
        super().__init__(start)
        self._space = path_space(settings, start)

    def _best_model(self, evaluations: Sequence[Scored]) -> int:
        """The index of the best founder in the space; of the first where all failed."""
        fitness: Mapping[str, float] = {s.candidate.id: s.fitness for s in evaluations}
        return ranking([fitness.get(m.id, float("nan")) for m in self._space.models])[0]
