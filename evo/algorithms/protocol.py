"""Ask and tell: the interface between algorithms and the loop that evaluates their candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from operators.recipe import Founder, Recipe


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe to evaluate, the operator that made it, the ids of its parents, and the operator's seed."""

    recipe: Recipe
    operator: str
    parents: tuple[str, ...] = ()
    seed: int = 0

    @property
    def id(self) -> str:
        return self.recipe.id


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate and its fitness on ``dev``, NaN if its evaluation failed."""

    candidate: Candidate
    fitness: float


class Algorithm(Protocol):
    """Decides which recipes to evaluate next. It sees ``dev`` fitness only.

    Deterministic: the same seed and the same evaluations in the same order give the same candidates.
    """

    @property
    def generation(self) -> int:
        """The last finished generation, -1 before the first. The founders are generation 0."""
        ...

    @property
    def population(self) -> tuple[Scored, ...]:
        """The individuals that survived the last finished generation, best first."""
        ...

    def ask(self) -> list[Candidate]:
        """The next candidates, each recipe once; may be empty. One tell follows every ask."""
        ...

    def tell(self, evaluations: Sequence[Scored]) -> None:
        """Learn from the evaluations of the last ask, in its order."""
        ...


@runtime_checkable
class SteadyAlgorithm(Algorithm, Protocol):
    """An algorithm that also takes evaluations one by one, in the order in which they end.

    Deterministic in that order: the same calls give the same candidates. For each candidate that
    :meth:`ask_one` returned, one :meth:`tell_one` follows, in any order; :meth:`ask` and :meth:`tell` are
    not used in such a run. ``generation`` becomes 0 with the last founder's evaluation, and grows by one
    with each population evaluated after that.
    """

    def ask_one(self) -> Candidate | None:
        """The next candidate. None: wait for more evaluations, as until all founders are evaluated.

        None with nothing in flight means that no new candidates will come. The recipe may be one that was
        asked before or is being evaluated: its evaluation is passed again.
        """
        ...

    def tell_one(self, evaluation: Scored) -> None:
        """Learn from one evaluation; its fitness is NaN if it failed."""
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


def contest_in(algorithm: Algorithm, asked: int) -> Contest:
    """What an algorithm says of its latest round; by default, to be in the better half."""
    if isinstance(algorithm, Racing):
        return algorithm.contest(asked)
    return Contest((asked + 1) // 2)


def contest_of(
    algorithm: Algorithm, asked: Sequence[Candidate], known: Sequence[Candidate]
) -> Contest | None:
    """What the round ``asked`` races for, as :func:`contest_in` says.

    Those that are ``known`` already are rivals of the new ones. None for the founders: they do not race.
    """
    if algorithm.generation < 0:
        return None
    contest = contest_in(algorithm, len(asked))
    rivals = dict.fromkeys((*contest.rivals, *(c.id for c in known)))
    return Contest(contest.keeps, tuple(rivals))


@dataclass(frozen=True, slots=True)
class Start:
    """What every algorithm starts from.

    Attributes:
        founders: the founders; in a later stage of a sequence also the winners of earlier stages.
        base: the model that the founders were tuned from.
        seed: of the algorithm's own random generator.
        layers: the number of layers of each model that can be told apart by name, 0 if there are none.
        tensors: the names of the models' tensors; empty if not known.
        adapters: whether all founders are LoRA adapters of the base.
        evaluations: the budget of evaluations, None if it is another kind of budget.
        influence: block influence of each layer, by founder id; empty if not measured.
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
