"""Scoring: the scorer's process and the answers that it scores; replaces a scorer that dies or hangs."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, Final

from ray.exceptions import RayError, RayTaskError

from cluster.jobs import JobResult
from cluster.pool import PoolError
from cluster.ray.actors import Waiting, reason_of, start_scorer
from cluster.ray.connect import ray
from cluster.ray.host_manager import Host, HostCall
from cluster.ray.retries import Loss, TimedQueue
from operators.recipe import Founder

# Sent to the scorer in place of each recipe, which is the largest part of a job and decides no score.
_NO_RECIPE: Final = Founder("", "")


class Scoring:
    """One scorer and the calls that it scores. Answers outlive it, so no model has to run again.

    Args:
        tasks: a reference to the tasks.
        done: takes a result.
        retry: takes a call whose answers are lost.
        count_loss: records a loss of a call with one job; returns whether it is scored again.
        add_event: takes an event's kind and detail.
    """

    def __init__(
        self,
        tasks: Any,
        waiting: Waiting,
        *,
        deadline_s: float,
        done: Callable[[JobResult], None],
        retry: Callable[[HostCall, Loss], None],
        count_loss: Callable[[HostCall, Loss], bool],
        add_event: Callable[[str, str], None],
    ) -> None:
        self._tasks = tasks
        self._waiting = waiting
        self._deadline_s = deadline_s
        self._done = done
        self._retry = retry
        self._count_loss = count_loss
        self._add_event = add_event
        self._calls: TimedQueue[HostCall] = TimedQueue()
        self._scores: dict[HostCall, Any] = {}  # references to results
        self._actor: Any = None
        self._was_ready = False  # this scorer or one before it
        self.pid = 0  # set when the scorer is ready
        self._start()

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[HostCall]:
        return iter(self._calls)

    @property
    def hosts(self) -> set[Host]:
        """Hosts with answers that are not scored yet."""
        return {call.host for call in self._calls}

    def add(self, call: HostCall) -> None:
        """Score the answers of a call that its host has finished."""
        jobs = tuple(replace(job, recipe=_NO_RECIPE) for job in call.jobs)
        reference = self._actor.score.remote(jobs, call.positions, call.answers)
        self._scores[call] = reference
        self._calls.add(call, monotonic())
        self._waiting[reference] = partial(self._on_scores, call)

    def tick(self, now: float, start_timeout_s: float) -> None:
        """Replace a scorer that hangs.

        Raises:
            PoolError: the new scorer does not start in time.
        """
        if self.pid and self._calls.overdue(now, self._deadline_s):
            self._take_finished()
        if self.pid and self._calls.overdue(now, self._deadline_s):
            self._replace(Loss("slow scoring", f"over {self._deadline_s:g} s"), "scoring deadline")
        elif self._was_ready and not self.pid and now - self._started > start_timeout_s:
            raise PoolError(f"the scorer did not start within {start_timeout_s:g} s")

    def close(self) -> None:
        """Kill the scorer."""
        self._calls.clear()
        self._scores.clear()
        if self._actor is not None:
            ray.kill(self._actor)
            self._actor = None

    def _start(self) -> None:
        self._actor, self.pid, self._started = start_scorer(self._tasks), 0, monotonic()
        self._waiting[self._actor.info.remote()] = partial(self._on_info, self._actor)

    def _on_info(self, actor: Any, reference: Any) -> None:
        if actor is not self._actor:
            return  # replaced while it started
        try:
            self.pid = ray.get(reference).pid
        except RayError as error:
            if not self._was_ready:
                raise PoolError(f"the scorer could not start: {reason_of(error)}") from error
            if not self._calls:  # else the references to their scores raise
                self._start()
            return
        self._was_ready = True
        self._calls.restart(monotonic())

    def _on_scores(self, call: HostCall, reference: Any) -> None:
        try:
            results = ray.get(reference)
        except RayTaskError as error:  # the answers were lost with their node
            self._remove(call)
            self._add_event("answer lost", f"of {call}: {reason_of(error)}")
            self._retry(call, Loss("answer", reason_of(error)))
        except RayError as error:
            self._take_finished()
            self._replace(Loss("scorer", reason_of(error)), "scorer lost")
        else:
            self._complete(call, results)

    def _take_finished(self) -> None:
        """Complete the calls whose results are there already."""
        for call in self._calls:
            reference = self._scores[call]
            try:
                results = ray.get(reference, timeout=0)
            except RayError:  # not there yet, or lost
                return
            self._waiting.pop(reference, None)
            self._complete(call, results)

    def _replace(self, loss: Loss, kind: str) -> None:
        """Start a new scorer. The call that was being scored goes last, with its jobs one by one, so
        that failures are attributed correctly; a single job is charged with the loss.
        """
        calls = self._calls.clear()
        for call in calls:
            self._waiting.pop(self._scores.pop(call), None)
        running = f"; it was scoring {calls[0]}" if calls else ""
        self._add_event(kind, f"process {self.pid}: {loss.reason}{running}")
        ray.kill(self._actor)
        self._start()
        for call in calls[1:]:
            self.add(call)
        if calls and len(calls[0].jobs) > 1:
            for call in calls[0].split():
                self.add(call)
        elif calls and self._count_loss(calls[0], loss):
            self.add(calls[0])

    def _complete(self, call: HostCall, results: Iterable[JobResult]) -> None:
        self._remove(call)
        for job, result in zip(call.jobs, results, strict=True):
            self._done(replace(result, job=job))

    def _remove(self, call: HostCall) -> None:
        self._calls.remove(call, monotonic())
        del self._scores[call]
