"""FitnessScorer: turns a host's outputs into per-example scores."""

from collections.abc import Iterable
from dataclasses import replace
from time import perf_counter

from cluster.jobs import HostResult, Job, JobResult, Query, QueryResult
from fitness.requests import CallOutput, Output, Request
from fitness.tasks.task import Task


class FitnessScorer:
    """Scores models' outputs by the tasks."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = {task.name: task for task in tasks}

    def score(self, job: Job, answer: HostResult) -> JobResult:
        """Score the job's answers; an exception of a scoring function fails the job, not the run."""
        started = perf_counter()
        results: tuple[QueryResult, ...] = ()
        error = answer.error
        if not error:
            try:
                results = tuple(
                    self._score(query, outputs)
                    for query, outputs in zip(job.queries, answer.outputs, strict=True)
                )
            # User code may raise anything; it fails this evaluation alone.
            except Exception as raised:
                error = f"scoring: {type(raised).__name__}: {raised}"
        timing = replace(answer.timing, score_s=perf_counter() - started)
        return JobResult(job, results, answer.host, timing, error, execution=answer.execution)

    def _score(self, query: Query, outputs: tuple[Output, ...]) -> QueryResult:
        if query.kind == "influence":
            (found,) = outputs
            return QueryResult(
                query, found.values if isinstance(found, CallOutput) else (), (), 0.0, 0.0
            )
        task = self._tasks[query.task]
        if query.kind == "answers":
            return QueryResult(query, (), task.answers(query.split, outputs), 0.0, 0.0)
        scores = task.score(query.split, outputs, query.part)
        return QueryResult(query, scores.values, scores.answers, scores.mean, scores.standard_error)


def requests_for(
    tasks: Iterable[Task], parts: Iterable[Query] = ()
) -> dict[Query, tuple[Request, ...]]:
    """The requests of every query on the tasks' splits, and of the queries ``parts``."""
    tasks = tuple(tasks)
    table: dict[Query, tuple[Request, ...]] = {}
    for task in tasks:
        for split in task.splits:
            table[Query(task.name, split)] = tuple(task.requests(split))
            table[Query(task.name, split, "influence")] = table[Query(task.name, split)]
            if task.supports_answers:
                table[Query(task.name, split, "answers")] = tuple(task.answer_requests(split))
    by_name = {task.name: task for task in tasks}
    for query in parts:
        table[query] = tuple(by_name[query.task].requests(query.split, query.part))
    return table
