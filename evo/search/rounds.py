"""Rounds: the candidates that a generational search evaluates together, with or without racing."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from cluster.jobs import JobResult
from evo.algorithms.protocol import Candidate, Contest
from evo.search.evaluator import Evaluator
from evo.search.racing import Evaluated, race
from fitness.splits import DEV


@dataclass(frozen=True, slots=True)
class Round:
    """Candidates to evaluate on dev, each once.

    Attributes:
        candidates: new ones.
        contest: which of them need an exact fitness; None: all.
        best: the best fitness of the run so far; no estimate reaches it.
    """

    candidates: tuple[Candidate, ...]
    contest: Contest | None = None
    best: float = math.inf


def evaluate_round(
    evaluator: Evaluator, round_: Round, on_result: Callable[[JobResult, float], None]
) -> list[Evaluated]:
    """Evaluate a round on dev; return the results in the order of its candidates.

    In a run that races, a candidate that cannot win the round's contest is dropped before it has met all
    examples, and its fitness is an estimate.

    Args:
        evaluator: runs the candidates.
        round_: the candidates.
        on_result: called with each result and its fitness, in the order of completion.
    """
    rungs, contest = evaluator.rungs, round_.contest
    if rungs is not None and contest is not None:
        return race(evaluator, rungs, round_.candidates, contest, round_.best, on_result)
    fitness = evaluator.objective.fitness
    recipes = [c.recipe for c in round_.candidates]
    results = evaluator.run(recipes, DEV, on_result=lambda r: on_result(r, fitness(r)))
    return [Evaluated(r, fitness(r)) for r in results]
