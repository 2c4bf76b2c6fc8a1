"""FitnessScorer: turns a host's outputs into per-example scores. Knows nothing of Ray or models."""

from collections.abc import Iterable
from dataclasses import replace
from time import perf_counter

from cluster.jobs import Ask, AskResult, HostAnswer, Job, JobResult
from fitness.requests import CallOutput, Output, Request
from fitness.tasks.task import Task


class FitnessScorer:
    """Holds tasks and scores what models answered."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = {task.name: task for task in tasks}

    def score(self, job: Job, answer: HostAnswer) -> JobResult:
        """One result for the job; a scoring function that raises fails the job, not the run."""
        started = perf_counter()
        results: tuple[AskResult, ...] = ()
        error = answer.error
        if not error:
            try:
                results = tuple(
                    self._score(ask, outputs)
                    for ask, outputs in zip(job.asks, answer.outputs, strict=True)
                )
            # User code: any exception of theirs is a failed evaluation with its message.
            except Exception as raised:
                error = f"scoring: {type(raised).__name__}: {raised}"
        timing = replace(answer.timing, score_s=perf_counter() - started)
        return JobResult(job, results, answer.host, timing, error, made=answer.made)

    def _score(self, ask: Ask, outputs: tuple[Output, ...]) -> AskResult:
        if ask.kind == "influence":
            (found,) = outputs
            return AskResult(
                ask, found.values if isinstance(found, CallOutput) else (), (), 0.0, 0.0
            )
        task = self._tasks[ask.task]
        if ask.kind == "answers":
            return AskResult(ask, (), task.answers(ask.split, outputs), 0.0, 0.0)
        scores = task.score(ask.split, outputs, ask.part)
        return AskResult(ask, scores.values, scores.answers, scores.mean, scores.standard_error)


def requests_for(
    tasks: Iterable[Task], parts: Iterable[Ask] = ()
) -> dict[Ask, tuple[Request, ...]]:
    """The requests of every ask that the tasks can be asked, and of ``parts`` of them."""
    tasks = tuple(tasks)
    table: dict[Ask, tuple[Request, ...]] = {}
    for task in tasks:
        for split in task.splits:
            table[Ask(task.name, split)] = tuple(task.requests(split))
            table[Ask(task.name, split, "influence")] = table[Ask(task.name, split)]
            if task.supports_answers:
                table[Ask(task.name, split, "answers")] = tuple(task.answer_requests(split))
    by_name = {task.name: task for task in tasks}
    for ask in parts:
        table[ask] = tuple(by_name[ask.task].requests(ask.split, ask.part))
    return table
