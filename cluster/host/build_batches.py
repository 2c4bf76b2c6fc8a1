"""BatchBuilder: builds and digests individuals, several in one pass, on a GPU while others run."""

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

FACTOR_BATCH = 16  # individuals as factors in one batch; they are small beside their base
BATCH_BYTES = 64 * 2**20  # size of a build batch; a larger model is built alone

Form: TypeAlias = Literal["whole", "path", "factors"]


@dataclass(frozen=True, slots=True)
class BuiltIndividual:
    """What was built and its digest, or the error."""

    built: Weights | LayerPath | Adapted | None
    digest: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class BuildBatch:
    """Individuals of one pass, which took ``seconds``; ``stack`` is their weights in one allocation, if so."""

    members: tuple[BuiltIndividual, ...]
    seconds: float
    stack: Stack | None = None


class BatchBuilder:
    """Builds what a host runs next.

    Args:
        explain: turns an exception into the error of the individual that could not be built.
        ahead: build the next batch in a second thread and second memory while one runs.

    Attributes:
        ahead: whether it builds a batch while another runs.
        wide: whether it has allocated memory for more than one individual.
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
        """The form of an individual; those of a batch have the same form."""
        if isinstance(recipe, Route):
            return "path"
        try:
            return "whole" if self._builder.adapted(recipe) is None else "factors"
        # Building it raises the same, which is then recorded as the failure of this individual.
        except Exception:
            return "whole"

    def batch_size(self, together: int) -> int:
        """The size of a build batch for model batches of ``together`` individuals."""
        if self.ahead:  # one model batch, so that the next can be built while it runs
            return together
        return max(1, self._most // together) * together

    def build(self, groups: Sequence[Sequence[Recipe]]) -> Iterator[BuildBatch]:
        """Build each group and yield it, in order; it is valid until the next one is taken."""
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
        """Build one individual at a time from now on, in the memory of one."""
        self._rooms = [None, None]
        self._most, self.ahead, self.wide = 1, False, False

    def _build(self, room: int, recipes: Sequence[Recipe]) -> BuildBatch:
        started = perf_counter()
        stack = None
        if self.form(recipes[0]) == "factors":
            members: tuple[BuiltIndividual, ...] = tuple(
                self._build_alone(r, None) for r in recipes
            )
        elif len(recipes) == 1 and (room == 0 or isinstance(recipes[0], Route)):
            members = (self._build_alone(recipes[0], None),)
        else:
            self.wide = True
            try:
                stack = self._room(room, len(recipes))
            except Exception as raised:
                members = (BuiltIndividual(None, error=self._explain(raised)),) * len(recipes)
            else:
                members = self._build_together(recipes, stack)
        return BuildBatch(members, perf_counter() - started, stack)

    def _build_together(
        self, recipes: Sequence[Recipe], stack: Stack
    ) -> tuple[BuiltIndividual, ...]:
        places = [stack[i] for i in range(len(recipes))]
        try:
            built = self._builder.build_all(recipes, places)
            return tuple(BuiltIndividual(one, self._builder.digest(one)) for one in built)
        # Operators may raise anything on a recipe. Build each alone, so that failures are attributed correctly.
        except Exception as raised:
            reason = self._explain(raised)
        members = tuple(map(self._build_alone, recipes, places))
        if not any(member.error for member in members):
            self._most = 1
            self.fallbacks.append(
                f"individuals are built one by one: a build batch of {len(recipes)} failed: {reason}"
            )
        return members

    def _build_alone(self, recipe: Recipe, place: Weights | None) -> BuiltIndividual:
        # Whatever an operator raises on a recipe is the failure of this individual.
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
            self._rooms[number] = None  # free the old one before the new one is allocated
            room = self._rooms[number] = self._builder.allocate(count)
        return room[:count]
