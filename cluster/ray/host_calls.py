"""HostCalls: sends jobs to hosts, takes their answers, and puts jobs back when a host is lost."""

from collections.abc import Callable, Collection
from functools import partial
from time import monotonic
from typing import Any

from ray.exceptions import RayError, RayTaskError

from cluster.jobs import HostStats
from cluster.ray.actors import Waiting, call_host, reason_of
from cluster.ray.connect import ray
from cluster.ray.host_manager import Host, HostCall, HostManager
from cluster.ray.job_queue import JobQueue
from cluster.ray.retries import Loss


class HostCalls:
    """The calls in progress on the hosts of one pool.

    ``answered`` takes a call whose answers are there, and the host's stats. ``retry`` takes a call that was
    lost. ``add_event`` takes an event's kind and detail.
    """

    def __init__(
        self,
        hosts: HostManager,
        queue: JobQueue,
        waiting: Waiting,
        *,
        deadline_s: float,
        answered: Callable[[HostCall, HostStats], None],
        retry: Callable[[HostCall, Loss], None],
        add_event: Callable[[str, str], None],
    ) -> None:
        self._hosts = hosts
        self._queue = queue
        self._waiting = waiting
        self._deadline_s = deadline_s
        self._answered = answered
        self._retry = retry
        self._add_event = add_event
        self.last_loss = ""  # reason of the last lost host

    def send_next(self) -> bool:
        """Send the next call; False if there is no job, or no host that may take it."""
        found = self._queue.next_call(self._hosts.ready)
        if found is None:
            return False
        host, jobs = found
        stats, answers = call_host(host.actor, jobs)
        call = HostCall(jobs, host, stats, answers, tuple(range(len(jobs))))
        host.calls.add(call, monotonic())
        self._waiting[stats] = partial(self._on_stats, call)
        return True

    def end_lost_hosts(self, now: float) -> None:
        """End hosts whose node is gone, or whose running call is over the deadline."""
        for host in self._hosts.on_lost_nodes:
            self._take_finished(host)
            self._end(host, Loss("node", "its node is gone"), "host lost")
        for host in self._hosts:
            if host.calls.overdue(now, self._deadline_s):
                self._take_finished(host)
            if host.calls.overdue(now, self._deadline_s):
                self._end(host, Loss("slow", f"over {self._deadline_s:g} s"), "deadline")

    def end_draining_hosts(self, unscored: Collection[Host]) -> None:
        """Move jobs that draining hosts have not begun; end such a host once it has no work left.

        ``unscored`` are hosts that still hold answers for the scorer.
        """
        for host in self._hosts.draining:
            for call in tuple(host.calls)[1:]:
                self._waiting.pop(call.stats, None)
                host.calls.remove(call, monotonic())
                self._queue.put_back(call.jobs)
            if not host.calls and host not in unscored:
                self._hosts.remove(host)
                self._add_event("host removed", f"{host}: its node is being drained")

    def _on_stats(self, call: HostCall, reference: Any) -> None:
        host = call.host
        try:
            stats = ray.get(reference)
        except RayTaskError as error:  # the call failed, the host lives
            host.calls.remove(call, monotonic())
            self._retry(call, Loss("error", reason_of(error)))
        except RayError as error:
            # Answers that it gave before it died count; the first call without answers was running.
            self._take_finished(host)
            with_node = self._hosts.is_node_gone(host, error)
            self._end(host, Loss("node" if with_node else "host", reason_of(error)), "host lost")
            self._hosts.fill()
        else:
            self._finish(call, stats)

    def _take_finished(self, host: Host) -> None:
        """Finish the calls whose answers are there already."""
        for call in host.calls:
            try:
                stats = ray.get(call.stats, timeout=0)
            except RayError:  # not there yet, or lost
                return
            self._waiting.pop(call.stats, None)
            self._finish(call, stats)

    def _finish(self, call: HostCall, stats: HostStats) -> None:
        host = call.host
        if host.stats is not None:
            self._queue.learn(call.jobs, host.stats, stats)
        host.stats = stats
        host.calls.remove(call, monotonic())
        self._answered(call, stats)

    def _end(self, host: Host, loss: Loss, kind: str) -> None:
        """Kill the host. Its running call counts as lost; the calls behind it go back to the queue."""
        calls = host.calls.clear()
        for call in calls:
            self._waiting.pop(call.stats, None)
        for call in reversed(calls[1:]):
            self._queue.put_back(call.jobs)
        self.last_loss = loss.reason
        running = f"; it was running {calls[0]}" if calls else ""
        self._add_event(kind, f"{host}: {loss.reason}{running}")
        if calls:
            self._retry(calls[0], loss)
        self._hosts.remove(host)
