"""RecordedResults: the results of a run before it was resumed, returned in order to replay its search."""

from collections.abc import Sequence
from heapq import heappop, heappush

from cluster.jobs import JobResult
from evo.errors import EvoError
from evo.lineage.storage.records import RACED, Key, Record
from operators.recipe import Recipe


class RecordedResults:
    """The recorded results that the search has not requested yet."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records: dict[Key, tuple[int, Record]] = {}
        self._requested: list[tuple[int, Key, Recipe]] = []  # a heap, by position in the record
        # After a kill just behind a commit, the journal still holds the rungs of committed races.
        raced = {r.key[:2] for r in records if r.key[2] in (RACED, "score")}
        for position, record in enumerate(records):
            if not (record.queries[0].part and record.key[:2] in raced):
                self._records.setdefault(record.key, (position, record))
        self.seconds = max((r.at_s for r in records), default=0.0)

    def __len__(self) -> int:
        return len(self._records)

    def request(self, key: Key, recipe: Recipe) -> bool:
        """Return whether there is a result for ``key``; if so, :meth:`next` returns it in its turn."""
        if key not in self._records:
            return False
        heappush(self._requested, (self._records[key][0], key, recipe))
        return True

    def next(self) -> tuple[Key, JobResult] | None:
        """Return the requested result that was recorded first; None if none is requested."""
        if not self._requested:
            return None
        _, key, recipe = heappop(self._requested)
        return key, self._records.pop(key)[1].result(recipe)

    def take(self, key: Key, recipe: Recipe) -> JobResult | None:
        """Return and remove the result for ``key``; None if there is none."""
        found = self._records.pop(key, None)
        return None if found is None else found[1].result(recipe)

    def check_used(self) -> None:
        """Check that the search has requested every recorded result.

        Raises:
            EvoError: it has not, so the replay differs from the recorded search.
        """
        if self._records:
            _, first = min(self._records.values(), key=lambda entry: entry[0])
            raise EvoError(
                f"{len(self._records)} recorded evaluations are not requested by the replayed search, the first of individual "
                f"{first.individual[:12]} on {first.key[1]}. What decides the search has changed (this "
                "package, numpy, cmaes): resume with the versions in manifest.json, or start a new run"
            )
