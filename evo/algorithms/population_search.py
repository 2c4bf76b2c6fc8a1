"""PopulationSearch: what all searches share. It lets a generational search take evaluations one by one."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic

import numpy as np

from evo.algorithms.buffer import Buffer, T
from evo.algorithms.protocol import Candidate, Scored, Start
from operators.variation.selection import ranking


class PopulationSearch(ABC, Generic[T]):
    """``ask_one`` and ``tell_one`` over a subclass's ``ask`` and ``tell``, whose rounds may overlap.

    A subclass may be asked again before its last round is evaluated, and takes evaluations of several
    rounds together. A generation has as many evaluations as its first round has candidates; while more are in
    flight, further rounds are asked of the same state. So one evaluation at a time gives the same search
    as whole generations, and the more are in flight, the older is the state that a candidate is made from.
    """

    def __init__(self, start: Start) -> None:
        self._start = start
        self._rng = np.random.default_rng(start.seed)
        self._buffer: Buffer[T] = Buffer()
        self._population: tuple[Scored, ...] = ()
        self._generation = -1

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def population(self) -> tuple[Scored, ...]:
        return self._population

    @abstractmethod
    def ask(self) -> list[Candidate]: ...

    @abstractmethod
    def tell(self, evaluations: Sequence[Scored]) -> None: ...

    def ask_one(self) -> Candidate | None:
        founders_in_flight = self.generation < 0 and self._buffer.generation_size > 0
        if self._buffer.is_empty and not founders_in_flight:
            self._buffer.enqueue(self._round())
        return self._buffer.next()

    def tell_one(self, evaluation: Scored) -> None:
        if complete := self._buffer.collect(evaluation):
            self.tell(complete)

    def _round(self) -> list[Candidate]:
        """Candidates of the current state, for ``ask_one``; empty if there are none."""
        return self.ask()

    def _end_generation(self, members: Sequence[Scored]) -> None:
        """Make ``members`` the population, best first."""
        order = ranking([s.fitness for s in members])
        self._population = tuple(members[i] for i in order)
        self._generation += 1
