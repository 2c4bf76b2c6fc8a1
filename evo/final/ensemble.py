"""The ensemble: a vote of several individuals on every test example."""

from collections.abc import Sequence

from evo.algorithms import Candidate
from evo.final.scorer import FinalScorer, task_scores
from evo.run_dir.summary import ResultRow
from fitness.splits import TEST


def score_ensemble(
    scorer: FinalScorer, name: str, members: Sequence[Candidate]
) -> ResultRow | None:
    """Return the result row of the vote of ``members``, best first: the first wins ties.

    Members that fail do not vote. None where the tasks have no test split or no answers to vote on, where
    every member fails, or where a task's own scoring function raises, which is recorded as an event.
    """
    objective = scorer.evaluator.objective
    tasks = [t.task for t in objective.tasks]
    if not objective.has_split(TEST) or not all(t.supports_answers for t in tasks):
        return None
    results = scorer.evaluator.run([m.recipe for m in members], TEST, "answers")
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
    except Exception as raised:  # a user's scoring function may raise anything
        scorer.record_failure(f"{name}: {type(raised).__name__}: {raised}")
        return None
    total = objective.combine(means)
    tasks_row = task_scores(total)
    return ResultRow(
        name, "ensemble", None, None, None, total.fitness, total.standard_error, tasks_row
    )
