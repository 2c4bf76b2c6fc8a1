"""The end of a run: finalists meet ``select``, then the winner and the baselines meet ``test``, once."""

import math
from collections.abc import Iterable, Sequence

from cluster.jobs import JobResult
from evo.algorithms import Candidate, Scored
from evo.lineage.storage.writer import LineageWriter
from evo.run_dir.summary import ResultRow, TaskScore
from evo.search.evaluator import Evaluator
from evo.search.objective import SplitFitness
from fitness.splits import SELECT, TEST, Split


class Finals:
    """Scores finalists and baselines, and records them in the lineage."""

    def __init__(self, evaluator: Evaluator, lineage: LineageWriter, generation: int) -> None:
        self._evaluator = evaluator
        self._lineage = lineage
        self._generation = generation
        self._recorded: set[tuple[str, str]] = set()
        self.last_error = ""

    def record(self, candidate: Candidate, result: JobResult) -> None:
        """Put an individual and one evaluation of it into the lineage."""
        self._lineage.individual(candidate, self._generation)
        fitness = self._evaluator.objective.score(result).fitness
        self._lineage.evaluation(result, self._generation, fitness)

    def order(self, ranked: Sequence[Scored], count: int) -> list[Scored]:
        """The best ``count`` by dev, in order of their select fitness (ties: of dev)."""
        finalists = list(ranked[:count])
        if not self._evaluator.objective.has_split(SELECT):
            return finalists
        self._score([f.candidate for f in finalists], SELECT)
        by_select = {f.candidate.id: self._fitness(f.candidate, SELECT) for f in finalists}
        alive = [f for f in finalists if by_select[f.candidate.id] is not None]
        return sorted(alive, key=lambda f: -(by_select[f.candidate.id] or 0.0))

    def entry(self, name: str, kind: str, candidate: Candidate, dev: float | None) -> ResultRow:
        """The row of one individual: scored on select and test where the tasks have them."""
        for split in (SELECT, TEST):
            if self._evaluator.objective.has_split(split):
                self._score([candidate], split)
        measure = self._measure(candidate, TEST)
        return ResultRow(
            name,
            kind,
            candidate.id,
            None if dev is None else _finite(dev),
            self._fitness(candidate, SELECT),
            _finite(measure.fitness) if measure else None,
            _finite(measure.standard_error) if measure else None,
            _tasks(measure) if measure else {},
        )

    def ensemble(self, name: str, members: Sequence[Candidate]) -> ResultRow | None:
        """The row of a vote of ``members`` (the first wins ties); None where tasks give no answers."""
        tasks = [t.task for t in self._evaluator.objective.tasks]
        if not self._evaluator.objective.has_split(TEST) or not all(
            t.supports_answers for t in tasks
        ):
            return None
        results = self._evaluator.run([m.recipe for m in members], TEST, "answers")
        voters = [r for r in results if r.ok]
        if not voters:
            return None
        means = {}
        try:
            for position, task in enumerate(tasks):
                answers = [
                    ["" if a is None else a for a in r.results[position].answers] for r in voters
                ]
                scores = task.score_answers(TEST, task.combine_answers(answers))
                means[task.name] = (scores.mean, scores.standard_error)
        # A user's scoring function may raise anything; a vote that can't be scored costs its row.
        except Exception as raised:
            self._lineage.event(
                "failed", f"{name}: {type(raised).__name__}: {raised}", self._generation
            )
            return None
        total = self._evaluator.objective.combine(means)
        return ResultRow(
            name, "ensemble", None, None, None, total.fitness, total.standard_error, _tasks(total)
        )

    def _score(self, candidates: Iterable[Candidate], split: Split) -> None:
        chosen = list(candidates)
        results = self._evaluator.run([c.recipe for c in chosen], split)
        for candidate, result in zip(chosen, results, strict=True):
            if (candidate.id, split) not in self._recorded:
                self._recorded.add((candidate.id, split))
                self.record(candidate, result)
                self.last_error = result.error or self.last_error

    def _measure(self, candidate: Candidate, split: Split) -> SplitFitness | None:
        if not self._evaluator.objective.has_split(split):
            return None
        result: JobResult = self._evaluator.run([candidate.recipe], split)[0]
        return self._evaluator.objective.score(result)

    def _fitness(self, candidate: Candidate, split: Split) -> float | None:
        measure = self._measure(candidate, split)
        return _finite(measure.fitness) if measure else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _tasks(measure: SplitFitness) -> dict[str, TaskScore]:
    return {name: TaskScore(mean, error) for name, (mean, error) in measure.tasks.items()}
