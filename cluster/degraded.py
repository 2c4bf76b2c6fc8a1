"""Degraded hosts as events: each host and reason once."""

from cluster.jobs import HostStats, PoolEvent


class DegradedEvents:
    """Remembers which reasons of which hosts are reported already."""

    def __init__(self) -> None:
        self._reported: set[tuple[str, str]] = set()

    def new(self, stats: HostStats) -> list[PoolEvent]:
        """An event of kind ``degraded`` for each reason in ``stats`` that its host did not give before."""
        reasons = [r for r in stats.degraded if (stats.host, r) not in self._reported]
        self._reported |= {(stats.host, reason) for reason in reasons}
        return [PoolEvent("degraded", f"{stats.host}: {reason}") for reason in reasons]
