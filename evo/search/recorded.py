"""RecordedResults: the results of a run before it was resumed, returned in order to replay its search."""

from collections.abc import Sequence
from heapq import heappop, heappush

from cluster.jobs import JobResult
from evo.errors import EvoError
from evo.lineage.storage.records import RACED, Key, Record
from operators.recipe import Recipe


class RecordedResults:
    """The recorded results that the search has not requested yet.


    Args:
        records: those that the search asks for again, in the order recorded.
        known: those that it need not ask for again: of an end of the run that an extension goes beyond.
    """

    def __init__(self, records: Sequence[Record], known: Sequence[Record] = ()) -> None:
        self._records: dict[Key, tuple[int, Record]] = {}
        self._requested: list[tuple[int, Key, Recipe]] = []  # a heap, by position in the record
        # After a kill just behind a commit, the journal still holds the rungs of committed races.
        raced = {r.key[:2] for r in records if r.key[2] in (RACED, "score")}
        for position, record in enumerate((*records, *known)):
            if not (record.queries[0].part and record.key[:2] in raced):
                self._records.setdefault(record.key, (position, record))
        expected = {record.key for record in records}
        self._expected = expected & self._records.keys()
        self.seconds = max((r.at_s for r in (*records, *known)), default=0.0)

    def __len__(self) -> int:
        """The number of results that must still be asked for."""
        return len(self._expected)

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
        self._expected.discard(key)
        return key, self._records.pop(key)[1].result(recipe)

    def take(self, key: Key, recipe: Recipe) -> JobResult | None:
        """Return and remove the result for ``key``; None if there is none."""
        self._expected.discard(key)
        found = self._records.pop(key, None)
        return None if found is None else found[1].result(recipe)

    def check_used(self) -> None:
        """Check that the search has requested every recorded result.

        Raises:
            EvoError: it has not, so the replay differs from the recorded search.
        """
        if self._expected:
            _, first = min((self._records[k] for k in self._expected), key=lambda entry: entry[0])
            raise EvoError(
                f"{len(self._expected)} recorded evaluations are not requested by the replayed search, the first of individual "
                f"{first.individual[:12]} on {first.key[1]}. What decides the search has changed (this "
                "package, numpy, cmaes): resume with the versions in manifest.json, or start a new run"
            )
