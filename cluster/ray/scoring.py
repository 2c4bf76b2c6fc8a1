"""Scoring: answers waiting for the scorer's process, which is replaced when it dies or hangs."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, Final, TypeAlias

from ray.exceptions import RayError, RayTaskError

from cluster.jobs import JobResult
from cluster.pool import PoolError
from cluster.ray.actors import reason_of, start_scorer
from cluster.ray.connect import ray
from cluster.ray.host_manager import Host, HostCall
from cluster.ray.retries import Loss, TimedQueue
from operators.recipe import Founder

# A recipe is most of a job, and nothing to the scorer: it need not go there and back.
_NOBODY: Final = Founder("", "")

# What to do with each reference that is waited for, once it is there.
Waiting: TypeAlias = dict[Any, Callable[[Any], None]]


class Scoring:
    """One scorer and what it has to score. Answers outlive it, so that nothing need be run again.

    ``done`` takes a result; ``lost_answer`` takes flights whose answers are gone; ``lose`` charges a
    flight of one job with a loss, and says whether it may be tried again; ``note`` takes an event's kind and detail.
    """

    def __init__(
        self,
        tasks: Any,
        waiting: Waiting,
        *,
        deadline_s: float,
        done: Callable[[JobResult], None],
        lost_answer: Callable[[HostCall, Loss], None],
        lose: Callable[[HostCall, Loss], bool],
        note: Callable[[str, str], None],
    ) -> None:
        self._tasks = tasks
        self._waiting = waiting
        self._deadline_s = deadline_s
        self._done = done
        self._lost_answer = lost_answer
        self._lose = lose
        self._note = note
        self._lane: TimedQueue[HostCall] = TimedQueue()
        self._scores: dict[HostCall, Any] = {}  # references to results
        self._actor: Any = None
        self._worked = False  # whether there ever was one that was ready
        self.pid = 0  # once it is ready
        self._start()

    def __len__(self) -> int:
        return len(self._lane)

    def __iter__(self) -> Iterator[HostCall]:
        return iter(self._lane)

    @property
    def hosts(self) -> set[Host]:
        """Those of which answers are still to be scored."""
        return {flight.host for flight in self._lane}

    def add(self, flight: HostCall) -> None:
        """Score the flight's answers, which are there."""
        jobs = tuple(replace(job, recipe=_NOBODY) for job in flight.jobs)
        reference = self._actor.score.remote(jobs, flight.places, flight.answers)
        self._scores[flight] = reference
        self._lane.add(flight, monotonic())
        self._waiting[reference] = partial(self._on_score, flight)

    def tick(self, now: float, start_timeout_s: float) -> None:
        """Replace a scorer that hangs.

        Raises:
            PoolError: one does not start again.
        """
        if self.pid and self._lane.overdue(now, self._deadline_s):
            self._salvage()
        if self.pid and self._lane.overdue(now, self._deadline_s):
            self._replace(Loss("slow scoring", f"over {self._deadline_s:g} s"), "scoring deadline")
        elif self._worked and not self.pid and now - self._started > start_timeout_s:
            raise PoolError(f"the scorer did not start within {start_timeout_s:g} s")

    def close(self) -> None:
        """End the scorer."""
        self._lane.clear()
        self._scores.clear()
        if self._actor is not None:
            ray.kill(self._actor)
            self._actor = None

    def _start(self) -> None:
        self._actor, self.pid, self._started = start_scorer(self._tasks), 0, monotonic()
        self._waiting[self._actor.hello.remote()] = partial(self._on_hello, self._actor)

    def _on_hello(self, actor: Any, reference: Any) -> None:
        if actor is not self._actor:
            return  # replaced before it was heard
        try:
            self.pid = ray.get(reference).pid
        except RayError as error:
            if not self._worked:
                raise PoolError(f"the scorer could not start: {reason_of(error)}") from error
            if not self._lane:  # else what it had to score tells
                self._start()
            return
        self._worked = True
        self._lane.restart(monotonic())

    def _on_score(self, flight: HostCall, reference: Any) -> None:
        try:
            results = ray.get(reference)
        except (
            RayTaskError
        ) as error:  # it could not get the answers, which were lost with their node
            self._remove(flight)
            self._note("answer lost", f"of {flight}: {reason_of(error)}")
            self._lost_answer(flight, Loss("answer", reason_of(error)))
        except RayError as error:
            self._salvage()
            self._replace(Loss("scorer", reason_of(error)), "scorer lost")
        else:
            self._complete(flight, results)

    def _salvage(self) -> None:
        """Take the results that are there and were not seen yet."""
        for flight in self._lane:
            reference = self._scores[flight]
            try:
                results = ray.get(reference, timeout=0)
            except RayError:  # not there yet, or lost
                return
            self._waiting.pop(reference, None)
            self._complete(flight, results)

    def _replace(self, loss: Loss, kind: str) -> None:
        """What it was scoring goes last when the others are scored again: one by one, and then the one
        that it was scoring is to blame.
        """
        flights = self._lane.clear()
        for flight in flights:
            self._waiting.pop(self._scores.pop(flight), None)
        at = f"; it was at {flights[0]}" if flights else ""
        self._note(kind, f"process {self.pid}: {loss.reason}{at}")
        ray.kill(self._actor)
        self._start()
        for flight in flights[1:]:
            self.add(flight)
        if flights and len(flights[0].jobs) > 1:
            for flight in flights[0].split():
                self.add(flight)
        elif flights and self._lose(flights[0], loss):
            self.add(flights[0])

    def _complete(self, flight: HostCall, results: Iterable[JobResult]) -> None:
        self._remove(flight)
        for job, result in zip(flight.jobs, results, strict=True):
            self._done(replace(result, job=job))

    def _remove(self, flight: HostCall) -> None:
        self._lane.remove(flight, monotonic())
        del self._scores[flight]
