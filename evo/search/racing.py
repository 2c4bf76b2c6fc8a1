"""Racing: candidates meet the dev examples rung by rung, and those that cannot be among the best are dropped.

Which ones are dropped depends on scores alone, never on hosts or time.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cluster.jobs import JobResult
from evo.algorithms.protocol import Candidate, Contest
from evo.search.evaluator import Evaluator
from evo.search.objective import Objective
from evo.search.rungs import Rungs, restricted
from fitness.racing import beaten, example_order
from fitness.splits import DEV


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A candidate's result on dev and its fitness, an estimate if the candidate was dropped."""

    result: JobResult
    fitness: float

    @property
    def exact(self) -> bool:
        """Whether the candidate met all examples, or failed."""
        return not _is_partial(self.result)


def race(
    evaluator: Evaluator,
    rungs: Rungs,
    candidates: Sequence[Candidate],
    contest: Contest,
    best: float,
    on_result: Callable[[JobResult, float], None],
) -> list[Evaluated]:
    """Race ``candidates``, each once; return the results in their order.

    A resumed run takes committed results and recorded rungs from its records.

    Args:
        evaluator: runs the rungs.
        rungs: the parts in which examples are met.
        candidates: new ones.
        contest: how many of the candidates and which rivals are to be kept.
        best: the run's best fitness so far; no estimate reaches it.
        on_result: called with each candidate's result and fitness, after its last rung.
    """
    objective = evaluator.objective
    rivals = [r for r in map(evaluator.exact, contest.rivals) if r is not None]
    done: dict[str, JobResult] = {}

    def settle(result: JobResult) -> None:
        done[result.job.recipe.id] = result
        fitness = objective.fitness(result)
        on_result(result, min(fitness, best) if _is_partial(result) else fitness)

    for candidate in candidates:
        recorded = evaluator.recorded_race(candidate.recipe)
        if recorded is not None:
            settle(recorded)
    running = [c for c in candidates if c.id not in done]
    parts: dict[str, list[JobResult]] = {c.id: [] for c in running}
    rung = 0
    while running:
        # When no candidate can be dropped any more, the remaining rungs are one job.
        is_open = len(running) + len(rivals) > contest.keeps
        stop = rung + 1 if is_open else len(rungs)
        for result in evaluator.run_part([c.recipe for c in running], rungs.queries(rung, stop)):
            parts[result.job.recipe.id].append(result)
        joined = {c.id: rungs.joined(parts[c.id]) for c in running}
        alive = [c for c in running if joined[c.id].ok]
        finished: set[str] = set()
        if stop == len(rungs):
            for candidate in alive:
                evaluator.keep(joined[candidate.id], (candidate.id, DEV, "score"))
            finished = {c.id for c in alive}
        elif is_open and alive:
            so_far = [joined[c.id] for c in alive]
            finished = _dropped(objective, rungs, stop, so_far, rivals, contest.keeps)
        for candidate in running:
            if candidate.id in finished or not joined[candidate.id].ok:
                settle(joined[candidate.id])
        running = [c for c in alive if c.id not in finished]
        rung = stop
    settled = [done[c.id] for c in candidates]
    fitness = _estimates(objective, settled, rivals, contest.keeps, best)
    return [Evaluated(r, fitness[r.job.recipe.id]) for r in settled]


def _dropped(
    objective: Objective,
    rungs: Rungs,
    stop: int,
    alive: Sequence[JobResult],
    rivals: Sequence[JobResult],
    keeps: int,
) -> set[str]:
    """Return the ids of those in ``alive`` that cannot be among the best ``keeps``, after ``stop`` rungs."""
    met = rungs.met(stop)
    counts = [len(t.task.splits[DEV]) for t in objective.tasks]
    total, weight = sum(counts), sum(t.weight for t in objective.tasks)
    # Example scores times these average, over the examples of all tasks, to the fitness.
    scales = [
        t.signed_weight / weight * total / n for t, n in zip(objective.tasks, counts, strict=True)
    ]

    def values(results: Sequence[JobResult]) -> NDArray[np.float64]:
        rows = [_in_order(rungs, scales, met, r) for r in results]
        return np.array(rows).reshape(len(results), sum(met))

    lost = beaten(
        values(alive),
        values(rivals),
        total=total,
        keeps=keeps,
        confidence=rungs.confidence,
        # Scores lie in [0, 1]; a user's function may have a wider range, which `beaten` takes from the values.
        reach=max(map(abs, scales)),
        costs=np.array([objective.length_cost(r.job.recipe) for r in alive]),
        rival_costs=np.array([objective.length_cost(r.job.recipe) for r in rivals]),
    )
    return {r.job.recipe.id for r, gone in zip(alive, lost, strict=True) if gone}


def _in_order(
    rungs: Rungs, scales: Sequence[float], met: Sequence[int], result: JobResult
) -> NDArray[np.float64]:
    """Return what each example met adds to the fitness, in the order met; shape (examples met,).

    The examples of the tasks are interleaved evenly.
    """
    found, turn = [], []
    for task, scale, scored, count in zip(rungs.tasks, scales, result.results, met, strict=True):
        size = len(task.splits[DEV])
        values = np.full(size, np.nan)
        values[slice(None) if scored.positions is None else list(scored.positions)] = scored.values
        found.append(scale * values[list(example_order(size)[:count])])
        turn.append((np.arange(count) + 0.5) / size)
    order = np.argsort(np.concatenate(turn), kind="stable")
    each: NDArray[np.float64] = np.concatenate(found)[order]
    return each


def _estimates(
    objective: Objective,
    results: Sequence[JobResult],
    rivals: Sequence[JobResult],
    keeps: int,
    best: float,
) -> Mapping[str, float]:
    """Return the fitness by id: exact, or for a dropped candidate an estimate.

    The estimate is the fitness on the examples met, plus the mean difference that the other examples made
    to the individuals that met all: the first examples may be harder than the rest. It is limited to below
    the fitness of the best ``keeps`` and below ``best``.
    """
    fitness = {r.job.recipe.id: objective.fitness(r) for r in results}
    whole = [r for r in (*results, *rivals) if r.ok and not _is_partial(r)]
    reached = sorted((objective.fitness(r) for r in whole), reverse=True)
    limit = min([best, *reached[:keeps]])
    for result in filter(_is_partial, results):
        gains = [objective.fitness(r) - objective.fitness(_as_far(r, result)) for r in whole]
        estimate = fitness[result.job.recipe.id] + math.fsum(gains) / max(1, len(gains))
        fitness[result.job.recipe.id] = min(estimate, math.nextafter(limit, -math.inf))
    return fitness


def _is_partial(result: JobResult) -> bool:
    return any(r.positions is not None for r in result.results)


def _as_far(whole: JobResult, part: JobResult) -> JobResult:
    """Return ``whole`` reduced to the examples that ``part`` has met."""
    pairs = zip(whole.results, part.results, strict=True)
    return replace(
        whole,
        results=tuple(
            full if met.positions is None else restricted(full, met.positions)
            for full, met in pairs
        ),
    )
