"""Buffer: what a search keeps between proposing candidates and learning from their evaluations."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from evo.algorithms.protocol import Candidate, Scored

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """The evaluation of one candidate and what the candidate was made from. ``fitness`` is finite."""

    id: str
    source: T
    fitness: float


class Buffer(Generic[T]):
    """A search's queue of candidates, their sources, and outcomes that do not fill a batch yet.

    ``T`` is what a candidate is made from, such as a point of an optimizer. Several sources may give the
    same recipe: each of them gets the outcome.
    """

    def __init__(self) -> None:
        self._queue: deque[Candidate] = deque()
        self._evaluated: list[Scored] = []
        self._generation_size = 0  # 0 until the first round of a generation is queued
        self._sources: list[tuple[str, T]] = []
        self._outcomes: list[Outcome[T]] = []

    def __contains__(self, recipe_id: str) -> bool:
        """Whether a source of this recipe waits for its outcome."""
        return any(id_ == recipe_id for id_, _ in self._sources)

    @property
    def generation_size(self) -> int:
        """The number of evaluations that complete the current generation; 0 before its first round."""
        return self._generation_size

    def enqueue(self, candidates: Sequence[Candidate]) -> None:
        """Queue a round. The first round of a generation sets the generation's size."""
        self._queue.extend(candidates)
        self._generation_size = self._generation_size or len(self._queue)

    def next(self) -> Candidate | None:
        """The next candidate of the queue, None if it is empty."""
        return self._queue.popleft() if self._queue else None

    @property
    def is_empty(self) -> bool:
        return not self._queue

    def collect(self, evaluation: Scored) -> list[Scored]:
        """Add one evaluation. Returns the generation that it completes, each recipe once, or nothing.

        What is left in the queue then was made from an older state, and is dropped.
        """
        self._evaluated.append(evaluation)
        if not 0 < self._generation_size <= len(self._evaluated):
            return []
        complete = {s.candidate.id: s for s in self._evaluated}
        self._queue.clear()
        self._evaluated, self._generation_size = [], 0
        return list(complete.values())

    def add(self, recipe_id: str, source: T) -> None:
        """Remember what a candidate was made from, until its outcome is taken."""
        self._sources.append((recipe_id, source))

    def take(self, evaluations: Sequence[Scored]) -> list[Outcome[T]]:
        """Remove and return the outcomes of all sources evaluated here, in the order they were added.

        A failed candidate counts as the worst of ``evaluations``.
        """
        fitness = {s.candidate.id: s.fitness for s in evaluations}
        worst = min((f for f in fitness.values() if math.isfinite(f)), default=0.0)
        taken = [
            Outcome(id_, source, fitness[id_] if math.isfinite(fitness[id_]) else worst)
            for id_, source in self._sources
            if id_ in fitness
        ]
        self._sources = [(id_, source) for id_, source in self._sources if id_ not in fitness]
        return taken

    def batches(self, outcomes: Sequence[Outcome[T]], size: int) -> Iterator[list[Outcome[T]]]:
        """Batches of exactly ``size`` outcomes; the remainder waits for the next call."""
        self._outcomes += outcomes
        while len(self._outcomes) >= size:
            batch = self._outcomes[:size]
            del self._outcomes[:size]
            yield batch

    def drop_outcomes(self) -> None:
        """Drop outcomes that wait for a batch: the optimizer that they were for is gone."""
        self._outcomes.clear()

    def drop_sources(self) -> None:
        """Drop all sources: the outcomes of what is in flight teach nothing any more."""
        self._sources.clear()
