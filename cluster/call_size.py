"""CallSizer: how many jobs a host is given in one call, learnt from the calls before. Pure.

What a job answers depends on nothing that this decides, so that here, and only here, time may tell.
"""

from collections.abc import Sequence
from math import ceil, inf

from cluster.jobs import HostStats, Job, Query

CALL_S = 0.1  # what a call should take at least: less, and the calls themselves begin to cost


class CallSizer:
    """Seconds that jobs took, by host and by what they asked.

    ``limit_s`` is the deadline of one individual: a call takes a small part of it.
    """

    def __init__(self, limit_s: float = inf) -> None:
        self._longest_s = limit_s / 4
        self._seconds: dict[tuple[str, tuple[Query, ...]], float] = {}
        self._useful: dict[tuple[str, tuple[Query, ...]], int] = {}

    def size(self, host: str, queries: tuple[Query, ...], *, queued: int, hosts: int) -> int:
        """How many of ``queued`` jobs to give to ``host``, at most: one as long as none was timed.

        A call is of as many as make it long enough, or as the host makes use of; and it leaves as much for
        every other host: twice, to be even in the end, unless several take hardly longer than one.
        """
        seconds = self._seconds.get((host, queries))
        if seconds is None:
            return 1
        useful = self._useful[host, queries]
        share = ceil(queued / hosts / (2 if useful == 1 else 1))
        if seconds == 0:
            return share
        enough = max(ceil(CALL_S / seconds), useful)
        return max(1, int(min(enough, share, self._longest_s / seconds)))

    def learn(self, jobs: Sequence[Job], before: HostStats, after: HostStats) -> None:
        """A host did ``jobs`` between its two accounts."""
        key = after.host, jobs[0].queries
        self._seconds[key] = (after.busy_s - before.busy_s) / len(jobs)
        self._useful[key] = after.useful
