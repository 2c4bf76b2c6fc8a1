"""Ask and tell: what an algorithm is to the loop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from operators.recipe import Founder, Recipe


@dataclass(frozen=True, slots=True)
class Candidate:
    """An individual to try, and where it came from. ``parents`` are ids; ``seed`` what it drew."""

    recipe: Recipe
    operator: str
    parents: tuple[str, ...] = ()
    seed: int = 0

    @property
    def id(self) -> str:
        return self.recipe.id


@dataclass(frozen=True, slots=True)
class Scored:
    """What an algorithm is told of a candidate: its fitness on ``dev``, NaN if it failed."""

    candidate: Candidate
    fitness: float


class Algorithm(Protocol):
    """Decides which recipes to try next. Deterministic: same seed and same evaluations told in the
    same order, same candidates. Sees ``dev`` fitness only.
    """

    @property
    def generation(self) -> int:
        """The last finished generation, -1 before the first. The founders are generation 0."""
        ...

    @property
    def population(self) -> tuple[Scored, ...]:
        """Who is alive after the last finished generation, best first."""
        ...

    def ask(self) -> list[Candidate]:
        """What to evaluate next, each recipe once; may be empty. Every ask is followed by one tell."""
        ...

    def tell(self, evaluations: Sequence[Scored]) -> None:
        """The evaluations of what was asked, in the order asked."""
        ...


@runtime_checkable
class SteadyAlgorithm(Algorithm, Protocol):
    """An algorithm that also takes evaluations one by one, in the order in which they end.

    Deterministic in that order: the same calls give the same candidates. For each candidate that
    :meth:`ask_one` gave, one :meth:`tell_one` follows, in any order; :meth:`ask` and :meth:`tell` are not
    used in such a run. ``generation`` becomes 0 when the founders are told, and grows by one with each
    population that is told after them.
    """

    def ask_one(self) -> Candidate | None:
        """What to evaluate next; None: nothing before more is told (as until all founders are). None with
        nothing in flight: the search has run dry.

        May be a recipe that was asked before, or is being evaluated: it is told again.
        """
        ...

    def tell_one(self, evaluation: Scored) -> None:
        """One evaluation of what was asked; NaN fitness if it failed."""
        ...


@dataclass(frozen=True, slots=True)
class Contest:
    """What a round's candidates race for: to be among the best ``keeps`` of themselves and ``rivals`` (ids).

    Those are told their fitness over all examples; of the others an estimate will do that is below.
    """

    keeps: int
    rivals: tuple[str, ...] = ()


@runtime_checkable
class Racing(Protocol):
    """An algorithm that says how many of a round it needs exact fitness of."""

    def contest(self, asked: int) -> Contest:
        """For the ``asked`` candidates of the latest :meth:`Algorithm.ask`, before they are told."""
        ...


def contest_of(algorithm: Algorithm, asked: int) -> Contest:
    """What the round that was asked last races for: the algorithm's word, or to be in the better half."""
    if isinstance(algorithm, Racing):
        return algorithm.contest(asked)
    return Contest((asked + 1) // 2)


@dataclass(frozen=True, slots=True)
class Start:
    """What every algorithm starts from: the founders, their base, a seed, and the models' layers.

    A stage of a sequence starts from the winners of the stages before it, too. ``tensors`` are the names
    of the models' tensors, where they are known; ``adapters`` says that the founders are LoRA adapters of
    the base, all of them; ``evaluations`` is the budget, where it is one of evaluations; ``influence`` is
    the block influence of each layer by founder id, where it was measured.
    """

    founders: tuple[Recipe, ...]
    base: Founder
    seed: int
    layers: int = 0
    tensors: tuple[str, ...] = ()
    adapters: bool = False
    evaluations: int | None = None
    influence: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def founder_candidates(start: Start) -> list[Candidate]:
    """The founders themselves, each once: generation 0 of every algorithm."""
    return [Candidate(founder, "founder") for founder in dict.fromkeys(start.founders)]
