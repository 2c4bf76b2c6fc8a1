"""DegradedEvents: an event for each reason why a host is degraded."""

from cluster.jobs import HostStats, PoolEvent


class DegradedEvents:
    """Remembers which reasons of each host are reported."""

    def __init__(self) -> None:
        self._reported: set[tuple[str, str]] = set()

    def new(self, stats: HostStats) -> list[PoolEvent]:
        """Events of kind ``degraded`` for the reasons in ``stats`` that are new for this host."""
        reasons = [r for r in stats.degraded if (stats.host, r) not in self._reported]
        self._reported |= {(stats.host, reason) for reason in reasons}
        return [PoolEvent("degraded", f"{stats.host}: {reason}") for reason in reasons]
