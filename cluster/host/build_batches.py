"""BatchBuilder: individuals built and digested before they run, several in one pass, ahead where that pays."""

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

FACTOR_BATCH = 16  # individuals of one pass that are factors: beside their base they are nothing
BATCH_BYTES = 64 * 2**20  # of individuals that are built together; a large model is built alone

Form: TypeAlias = Literal["whole", "path", "factors"]


@dataclass(frozen=True, slots=True)
class BuiltIndividual:
    """What was built and its digest; or why it could not be, and no digest."""

    built: Weights | LayerPath | Adapted | None
    digest: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class BuildBatch:
    """Individuals of one pass, in ``seconds`` all together. Where they lie in one allocation: ``stack``."""

    members: tuple[BuiltIndividual, ...]
    seconds: float
    stack: Stack | None = None


class BatchBuilder:
    """Builds what a host runs next.

    Args:
        explain: what an exception says, as an error of the individual that could not be built.
        ahead: build the next batch in a thread of its own while one is run, into memory of its own.

    Attributes:
        ahead: whether it builds while another batch is run.
        wide: whether it takes more memory than one individual needs.
        fallbacks: why individuals are built one by one where building several at once failed.
    """

    def __init__(
        self, builder: Builder, explain: Callable[[Exception], str], *, ahead: bool
    ) -> None:
        self._builder = builder
        self._explain = explain
        self.ahead = ahead
        self._rooms: list[Stack | None] = [None, None]
        self._most = max(1, BATCH_BYTES // builder.bytes)
        self.wide = False
        self.fallbacks: list[str] = []

    def form(self, recipe: Recipe) -> Form:
        """How an individual is built; those of one batch are of one form."""
        if isinstance(recipe, Route):
            return "path"
        try:
            return "whole" if self._builder.adapted(recipe) is None else "factors"
        # Building it will fail in the same way, as that individual's own failure.
        except Exception:
            return "whole"

    def batch_size(self, together: int) -> int:
        """How many to build at once that run ``together`` at a time."""
        if self.ahead:  # as few as can run, so that there is something to build meanwhile
            return together
        return max(1, self._most // together) * together

    def build(self, groups: Sequence[Sequence[Recipe]]) -> Iterator[BuildBatch]:
        """Each batch, in order. It is good until the next is taken."""
        if not self.ahead or len(groups) < 2:
            for recipes in groups:
                yield self._build(0, recipes)
            return
        self.wide = True
        with ThreadPoolExecutor(1, "build-ahead") as thread:
            following = thread.submit(self._build, 0, groups[0])
            for number in range(1, len(groups) + 1):
                batch = following.result()
                if number < len(groups):
                    following = thread.submit(self._build, number % 2, groups[number])
                yield batch

    def narrow(self) -> None:
        """From now on one individual at a time, in the memory of one."""
        self._rooms = [None, None]
        self._most, self.ahead, self.wide = 1, False, False

    def _build(self, room: int, recipes: Sequence[Recipe]) -> BuildBatch:
        started = perf_counter()
        stack = None
        if self.form(recipes[0]) == "factors":
            members: tuple[BuiltIndividual, ...] = tuple(self._by_itself(r, None) for r in recipes)
        elif len(recipes) == 1 and (room == 0 or isinstance(recipes[0], Route)):
            members = (self._by_itself(recipes[0], None),)
        else:
            self.wide = True
            try:
                stack = self._room(room, len(recipes))
            except Exception as raised:
                members = (BuiltIndividual(None, error=self._explain(raised)),) * len(recipes)
            else:
                members = self._at_once(recipes, stack)
        return BuildBatch(members, perf_counter() - started, stack)

    def _at_once(self, recipes: Sequence[Recipe], stack: Stack) -> tuple[BuiltIndividual, ...]:
        places = [stack[i] for i in range(len(recipes))]
        try:
            built = self._builder.build_all(recipes, places)
            return tuple(BuiltIndividual(one, self._builder.digest(one)) for one in built)
        # An operator raises what a candidate's recipe makes it raise. Each by itself says whose failure it is.
        except Exception as raised:
            reason = self._explain(raised)
        members = tuple(map(self._by_itself, recipes, places))
        if not any(member.error for member in members):
            self._most = 1
            self.fallbacks.append(
                f"individuals are built one by one: a build batch of {len(recipes)} failed: {reason}"
            )
        return members

    def _by_itself(self, recipe: Recipe, place: Weights | None) -> BuiltIndividual:
        # Whatever a candidate's recipe makes an operator raise is that candidate's failure.
        try:
            built: Weights | LayerPath | Adapted
            if place is None:
                built = self._builder.build(recipe)
            else:
                (built,) = self._builder.build_all([recipe], [place])
            return BuiltIndividual(built, self._builder.digest(built))
        except Exception as raised:
            return BuiltIndividual(None, error=self._explain(raised))

    def _room(self, number: int, count: int) -> Stack:
        room = self._rooms[number]
        if room is None or len(room) < count:
            self._rooms[number] = None  # the old one goes before the new one comes
            room = self._rooms[number] = self._builder.allocate(count)
        return room[:count]
