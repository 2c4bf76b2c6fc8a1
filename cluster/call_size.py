"""CallSizer: how many jobs to send to a host in one call, from the times of earlier calls.

No result depends on the size of a call, so it may depend on time; nothing else in a run may.
"""

from collections.abc import Sequence
from math import ceil, inf

from cluster.jobs import HostStats, Job, Query

CALL_S = 0.1  # least time of a call; the overhead of shorter calls is noticeable


class CallSizer:
    """Seconds that jobs took, by host and queries.

    ``limit_s`` is the deadline of one job; a call takes at most a quarter of it.
    """

    def __init__(self, limit_s: float = inf) -> None:
        self._longest_s = limit_s / 4
        self._seconds: dict[tuple[str, tuple[Query, ...]], float] = {}
        self._useful: dict[tuple[str, tuple[Query, ...]], int] = {}

    def size(self, host: str, queries: tuple[Query, ...], *, queued: int, hosts: int) -> int:
        """The largest number of the ``queued`` jobs to send to ``host``; 1 until a job was timed.

        A call has as many jobs as take `CALL_S` or as keep the host busy, but at most an equal share of the
        queue; half a share if jobs run one by one, so that all hosts finish at about the same time.
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
        """Record that a host did ``jobs`` between two of its stats."""
        key = after.host, jobs[0].queries
        self._seconds[key] = (after.busy_s - before.busy_s) / len(jobs)
        self._useful[key] = after.useful
