"""Nursery: individuals built and digested before they run, several in one pass, ahead where that pays."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, TypeAlias

from cluster.host.builder import Builder
from operators.build.paths import LayerPath
from operators.recipe import Recipe, Route
from operators.tensors.low_rank import Adapted
from operators.tensors.weights import Stack, Weights

APPLIED_BROOD = 16  # individuals of one pass that are factors: beside their base they are nothing
BROOD_BYTES = 64 * 2**20  # of individuals that are built together; a large model is built alone

Form: TypeAlias = Literal["whole", "path", "factors"]


@dataclass(frozen=True, slots=True)
class Newborn:
    """What was built and its digest; or why it could not be, and no digest."""

    built: Weights | LayerPath | Adapted | None
    digest: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Brood:
    """Individuals of one pass, in ``seconds`` all together. Where they lie in one allocation: ``stack``."""

    members: tuple[Newborn, ...]
    seconds: float
    stack: Stack | None = None


class Nursery:
    """Builds what a host runs next.

    Args:
        explain: what an exception says, as an error of the individual that could not be built.
        ahead: build the next brood in a thread of its own while one is run, into memory of its own.

    Attributes:
        ahead: whether it builds while another brood is run.
        wide: whether it takes more memory than one individual needs.
    """

    def __init__(
        self, builder: Builder, explain: Callable[[Exception], str], *, ahead: bool
    ) -> None:
        self._builder = builder
        self._explain = explain
        self.ahead = ahead
        self._rooms: list[Stack | None] = [None, None]
        self._most = max(1, BROOD_BYTES // builder.bytes)
        self.wide = False

    def form(self, recipe: Recipe) -> Form:
        """How an individual is built; those of one brood are of one form."""
        if isinstance(recipe, Route):
            return "path"
        try:
            return "whole" if self._builder.adapted(recipe) is None else "factors"
        # Building it will fail in the same way, as that individual's own failure.
        except Exception:
            return "whole"

    def brood_size(self, together: int) -> int:
        """How many to build at once that run ``together`` at a time."""
        if self.ahead:  # as few as can run, so that there is something to build meanwhile
            return together
        return max(1, self._most // together) * together

    def rear(self, broods: Sequence[Sequence[Recipe]]) -> Iterator[Brood]:
        """Each brood, in order. It is good until the next is taken."""
        if not self.ahead or len(broods) < 2:
            for recipes in broods:
                yield self._build(0, recipes)
            return
        self.wide = True
        with ThreadPoolExecutor(1, "nursery") as thread:
            following = thread.submit(self._build, 0, broods[0])
            for number in range(1, len(broods) + 1):
                brood = following.result()
                if number < len(broods):
                    following = thread.submit(self._build, number % 2, broods[number])
                yield brood

    def narrow(self) -> None:
        """From now on one individual at a time, in the memory of one."""
        self._rooms = [None, None]
        self._most, self.ahead, self.wide = 1, False, False

    def _build(self, room: int, recipes: Sequence[Recipe]) -> Brood:
        started = perf_counter()
        stack = None
        if self.form(recipes[0]) == "factors":
            members: tuple[Newborn, ...] = tuple(self._by_itself(r, None) for r in recipes)
        elif len(recipes) == 1 and (room == 0 or isinstance(recipes[0], Route)):
            members = (self._by_itself(recipes[0], None),)
        else:
            self.wide = True
            try:
                stack = self._room(room, len(recipes))
            except Exception as raised:
                members = (Newborn(None, error=self._explain(raised)),) * len(recipes)
            else:
                members = self._at_once(recipes, stack)
        return Brood(members, perf_counter() - started, stack)

    def _at_once(self, recipes: Sequence[Recipe], stack: Stack) -> tuple[Newborn, ...]:
        places = [stack[i] for i in range(len(recipes))]
        try:
            built = self._builder.build_all(recipes, places)
            return tuple(Newborn(one, self._builder.digest(one)) for one in built)
        except Exception:  # of one of them: each by itself says whose
            return tuple(map(self._by_itself, recipes, places))

    def _by_itself(self, recipe: Recipe, place: Weights | None) -> Newborn:
        # Whatever a candidate's recipe makes an operator raise is that candidate's failure.
        try:
            built: Weights | LayerPath | Adapted
            if place is None:
                built = self._builder.build(recipe)
            else:
                (built,) = self._builder.build_all([recipe], [place])
            return Newborn(built, self._builder.digest(built))
        except Exception as raised:
            return Newborn(None, error=self._explain(raised))

    def _room(self, number: int, count: int) -> Stack:
        room = self._rooms[number]
        if room is None or len(room) < count:
            self._rooms[number] = None  # the old one goes before the new one comes
            room = self._rooms[number] = self._builder.allocate(count)
        return room[:count]
