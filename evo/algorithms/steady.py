"""Steady state: what lets a search of generations take its evaluations one by one."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

from evo.algorithms.protocol import Candidate, Scored


class Steady(ABC):
    """``ask_one`` and ``tell_one`` over the ``ask`` and ``tell`` of a search whose rounds may overlap.

    Such a search may ask again before all of its last round is told, and takes evaluations of any
    rounds together. A generation is as many evaluations as the first round asked in it; more rounds are
    asked of the same state where more is in flight. So one evaluation at a time is the generational
    search again, and the more are in flight, the older is what a candidate was made of.
    """

    def __init__(self) -> None:
        self._queue: deque[Candidate] = deque()
        self._told: list[Scored] = []
        self._due = 0  # evaluations of the running generation, 0 until its first round is asked

    @property
    @abstractmethod
    def generation(self) -> int: ...

    @abstractmethod
    def ask(self) -> list[Candidate]: ...

    @abstractmethod
    def tell(self, evaluations: Sequence[Scored]) -> None: ...

    def ask_one(self) -> Candidate | None:
        all_founders_asked = self.generation < 0 and self._due > 0
        if not self._queue and not all_founders_asked:
            self._queue.extend(self._round())
            self._due = self._due or len(self._queue)
        return self._queue.popleft() if self._queue else None

    def tell_one(self, evaluation: Scored) -> None:
        self._told.append(evaluation)
        if 0 < self._due <= len(self._told):
            once = {s.candidate.id: s for s in self._told}
            # What is left of the last round was made of what is old now.
            self._queue.clear()
            self._told, self._due = [], 0
            self.tell(list(once.values()))

    def _round(self) -> list[Candidate]:
        """What to ask next, of what is known now; empty if there is nothing."""
        return self.ask()
