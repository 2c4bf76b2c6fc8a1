"""Race: a round's candidates meet the examples in rungs, and who can't reach the best is dropped."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cluster.jobs import JobResult
from evo.algorithms.protocol import Candidate, Contest
from evo.search.evaluator import Evaluator
from evo.search.rungs import DEV, Rungs, restricted
from fitness.racing import beaten, example_order

Raced: TypeAlias = tuple[JobResult, float]
"""A candidate's result, with ``positions`` where it was dropped, and what the algorithm is told."""


class Race:
    """Runs rounds. Who is dropped depends on the candidates' values alone, never on hosts or time.

    What an earlier sitting of the run has committed is taken from there; rungs that its journal has
    are not run again.
    """

    def __init__(self, evaluator: Evaluator, rungs: Rungs, confidence: float) -> None:
        self._evaluator, self._rungs, self._confidence = evaluator, rungs, confidence
        weighed = evaluator.tasks
        counts = [len(t.task.splits[DEV]) for t in weighed]
        weight, self._total = sum(t.weight for t in weighed), sum(counts)
        # Times an example's score: the mean over the examples of all tasks is then the fitness.
        self._scales = [
            t.share / weight * self._total / n for t, n in zip(weighed, counts, strict=True)
        ]

    def run(
        self,
        candidates: Sequence[Candidate],
        contest: Contest,
        best: float,
        on_result: Callable[[JobResult, float], None],
    ) -> list[Raced]:
        """All results, in the order of ``candidates``.

        Args:
            candidates: new ones, each once.
            contest: whom they race.
            best: the run's best fitness so far; no estimate reaches it.
            on_result: hears of each candidate when it is done.
        """
        rivals = [r for r in map(self._evaluator.known, contest.rivals) if r is not None]
        done: dict[str, JobResult] = {}

        def settle(result: JobResult) -> None:
            done[result.job.recipe.id] = result
            fitness = self._evaluator.measure(result).fitness
            on_result(result, min(fitness, best) if is_partial(result) else fitness)

        for candidate in candidates:
            found = self._evaluator.recall(candidate.recipe)
            if found is not None:
                settle(found)
        running = [c for c in candidates if c.id not in done]
        parts: dict[str, list[JobResult]] = {c.id: [] for c in running}
        rung = 0
        while running:
            # Where nobody can be dropped any more, the rest of the rungs are asked at once.
            open_ = len(running) + len(rivals) > contest.keeps
            stop = rung + 1 if open_ else len(self._rungs)
            recipes = [c.recipe for c in running]
            for result in self._evaluator.run(recipes, DEV, rungs=(rung, stop)):
                parts[result.job.recipe.id].append(result)
                self._evaluator.forget(result.job.recipe, (rung, stop))
            joined = {c.id: self._rungs.joined(parts[c.id]) for c in running}
            alive = [c for c in running if joined[c.id].ok]
            dropped: set[str] = set()
            if stop == len(self._rungs):
                for candidate in alive:
                    self._evaluator.keep(joined[candidate.id], (candidate.id, DEV, "score"))
                dropped = {c.id for c in alive}
            elif open_ and alive:
                dropped = self._outdone([joined[c.id] for c in alive], rivals, contest.keeps, stop)
            for candidate in running:
                if candidate.id in dropped or not joined[candidate.id].ok:
                    settle(joined[candidate.id])
            running = [c for c in alive if c.id not in dropped]
            rung = stop
        told = self._told([done[c.id] for c in candidates], rivals, contest.keeps, best)
        return [(done[c.id], told[c.id]) for c in candidates]

    def _outdone(
        self, alive: Sequence[JobResult], rivals: Sequence[JobResult], keeps: int, rungs: int
    ) -> set[str]:
        """Who of ``alive`` is dropped after so many rungs."""
        met = self._rungs.met(rungs)
        lost = beaten(
            np.stack([self._in_order(r, met) for r in alive]),
            np.array([self._in_order(r, met) for r in rivals]).reshape(len(rivals), sum(met)),
            total=self._total,
            keeps=keeps,
            confidence=self._confidence,
            # Scores lie between 0 and 1; a function's may be further apart, which what was met shows.
            reach=max(map(abs, self._scales)),
            costs=np.array([self._evaluator.cost(r.job.recipe) for r in alive]),
            rival_costs=np.array([self._evaluator.cost(r.job.recipe) for r in rivals]),
        )
        return {r.job.recipe.id for r, gone in zip(alive, lost, strict=True) if gone}

    def _in_order(self, result: JobResult, met: Sequence[int]) -> NDArray[np.float64]:
        """What each example met adds to the fitness, in the order met; tasks take turns evenly."""
        found, turn = [], []
        for task, scale, scored, count in zip(
            self._rungs.tasks, self._scales, result.results, met, strict=True
        ):
            size = len(task.splits[DEV])
            values = np.full(size, np.nan)
            values[slice(None) if scored.positions is None else list(scored.positions)] = (
                scored.values
            )
            found.append(scale * values[list(example_order(size)[:count])])
            turn.append((np.arange(count) + 0.5) / size)
        order = np.argsort(np.concatenate(turn), kind="stable")
        each: NDArray[np.float64] = np.concatenate(found)[order]
        return each

    def _told(
        self,
        results: Sequence[JobResult],
        rivals: Sequence[JobResult],
        keeps: int,
        best: float,
    ) -> Mapping[str, float]:
        """Fitness by id. That of the dropped is estimated from the examples met, and from how those
        who finished did there and on all: hard examples early are nobody's fault. It is less than that
        of any of the best ``keeps``, and less than ``best``.
        """
        measure = self._evaluator.measure
        told = {r.job.recipe.id: measure(r).fitness for r in results}
        whole = [r for r in (*results, *rivals) if r.ok and not is_partial(r)]
        reached = sorted((measure(r).fitness for r in whole), reverse=True)
        limit = min([best, *reached[:keeps]])
        for result in (r for r in results if is_partial(r)):
            later = [measure(r).fitness - measure(_as_far(r, result)).fitness for r in whole]
            estimate = told[result.job.recipe.id] + math.fsum(later) / max(1, len(later))
            told[result.job.recipe.id] = min(estimate, math.nextafter(limit, -math.inf))
        return told


def is_partial(result: JobResult) -> bool:
    return any(r.positions is not None for r in result.results)


def _as_far(whole: JobResult, part: JobResult) -> JobResult:
    """``whole`` on those examples that ``part`` has met."""
    pairs = zip(whole.results, part.results, strict=True)
    return replace(
        whole,
        results=tuple(
            full if met.positions is None else restricted(full, met.positions)
            for full, met in pairs
        ),
    )
