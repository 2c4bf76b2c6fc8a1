"""FinalScorer: scores individuals after the search, and records their evaluations."""

import math
from collections.abc import Collection, Sequence

from evo.algorithms import Candidate, Scored
from evo.errors import EvoError
from evo.final.selection import SelectionPolicy
from evo.lineage.storage.writer import LineageWriter
from evo.run_dir.summary import ResultRow, TaskScore
from evo.search.evaluator import Evaluator
from evo.search.objective import SplitFitness
from fitness.splits import SELECT, TEST, Split


class FinalScorer:
    """Scores individuals on any split, and records each evaluation once in the lineage.

    Args:
        evaluator: runs them.
        lineage: of the run.
        generation: the last one of the search; the evaluations are recorded under it.
        recorded: individual and split of the evaluations that an earlier final commit holds.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        lineage: LineageWriter,
        generation: int,
        recorded: Collection[tuple[str, str]] = (),
    ) -> None:
        self.evaluator = evaluator
        self._lineage = lineage
        self._generation = generation
        self._recorded = set(recorded)

    def score(self, candidates: Sequence[Candidate], split: Split) -> list[SplitFitness]:
        """Evaluate candidates on a split; return their fitness in the same order."""
        return [fitness for fitness, _ in self._score(candidates, split)]

    def choose(self, policy: SelectionPolicy, scored: Sequence[Scored], name: str) -> list[Scored]:
        """Return the finalists among ``scored``, best first; score them on select if tasks have that split.

        Raises:
            EvoError: all of ``scored`` failed on dev, or all finalists on select. ``name`` says of what.
        """
        shortlist = policy.shortlist(scored)
        if not shortlist:
            raise EvoError(f"{name}: every candidate failed; see the lineage's evaluations")
        if not self.evaluator.objective.has_split(SELECT):
            return shortlist
        results = self._score([s.candidate for s in shortlist], SELECT)
        ordered = policy.order(shortlist, [fitness.fitness for fitness, _ in results])
        if not ordered:
            raise EvoError(
                f"{name}: every finalist failed on the select split; the first error: {results[0][1]}"
            )
        return ordered

    def row(self, name: str, kind: str, candidate: Candidate, dev: float | None) -> ResultRow:
        """Score an individual on select and test, where tasks have them, and return its result row."""
        select, test = (
            self.score([candidate], split)[0] if self.evaluator.objective.has_split(split) else None
            for split in (SELECT, TEST)
        )
        return ResultRow(
            name,
            kind,
            candidate.id,
            None if dev is None else _finite(dev),
            _finite(select.fitness) if select else None,
            _finite(test.fitness) if test else None,
            _finite(test.standard_error) if test else None,
            task_scores(test) if test else {},
        )

    def record_failure(self, detail: str) -> None:
        """Record something other than an individual that could not be scored."""
        self._lineage.event("failed", detail, self._generation)

    def _score(
        self, candidates: Sequence[Candidate], split: Split
    ) -> list[tuple[SplitFitness, str]]:
        """Return the fitness of each candidate, and why its evaluation failed ("" if it did not)."""
        found = []
        results = self.evaluator.run([c.recipe for c in candidates], split)
        for candidate, result in zip(candidates, results, strict=True):
            fitness = self.evaluator.objective.score(result)
            if (candidate.id, split) not in self._recorded:
                self._recorded.add((candidate.id, split))
                self._lineage.individual(candidate, self._generation)
                self._lineage.evaluation(result, self._generation, fitness.fitness)
            found.append((fitness, result.error))
        return found


def task_scores(fitness: SplitFitness) -> dict[str, TaskScore]:
    """Return the scores by task, as a result row has them."""
    return {name: TaskScore(mean, error) for name, (mean, error) in fitness.tasks.items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
