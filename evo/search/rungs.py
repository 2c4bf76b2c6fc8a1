"""Rungs: in which parts the dev examples are met, and a whole result made of the parts' results."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cluster.jobs import Execution, Job, JobResult, Query, QueryResult, Timing
from evo.config.racing import RacingConfig
from evo.errors import EvoError
from fitness.racing import rung_ends
from fitness.statistics import mean_and_error
from fitness.tasks.task import Task

DEV = "dev"


@dataclass(frozen=True, slots=True)
class Rungs:
    """A run's rungs: every one takes the same share of each task's dev examples."""

    tasks: tuple[Task, ...]
    shares: tuple[float, ...]

    def __len__(self) -> int:
        """How many there are, with the one that ends at the last example."""
        return len(self.shares) + 1

    def queries(self, first: int = 0, stop: int | None = None) -> tuple[Query, ...]:
        """What is asked from rung ``first`` to the one before ``stop``: each part for itself.

        So a model's batches, and with them the last bits of its scores, are the same however many rungs
        are asked for at a time.
        """
        ends = [(0, *rung_ends(len(task.splits[DEV]), self.shares)) for task in self.tasks]
        return tuple(
            Query(task.name, DEV, part=(end[rung], end[rung + 1]))
            for rung in range(first, len(self) if stop is None else stop)
            for task, end in zip(self.tasks, ends, strict=True)
            if end[rung] < end[rung + 1]  # else a task has fewer examples than there are rungs
        )

    def met(self, rungs: int) -> tuple[int, ...]:
        """How many examples of each task have been met after so many rungs."""
        return tuple(
            rung_ends(len(task.splits[DEV]), self.shares)[rungs - 1] for task in self.tasks
        )

    def joined(self, results: Sequence[JobResult]) -> JobResult:
        """One result of those of an individual's rungs so far, in order; examples as in the file.

        One that failed makes it a failure. Where examples are lacking, it says which it has.
        """
        last = results[-1]
        queries = tuple(Query(task.name, DEV) for task in self.tasks)
        found = tuple(self._joined(task, results) for task in self.tasks) if last.ok else ()
        timings = [r.timing for r in results]
        whole = Timing(
            sum(t.build_s for t in timings),
            sum(t.model_s for t in timings),
            sum(t.score_s for t in timings),
        )
        attempt = max(r.job.attempt for r in results)
        job = Job(last.job.recipe, queries, last.job.key, attempt)
        made = Execution(last.execution.weights, self._tokens(results))
        at_s = max(r.at_s for r in results)
        return JobResult(job, found, last.host, whole, last.error, at_s, made)

    def _joined(self, task: Task, results: Iterable[JobResult]) -> QueryResult:
        values: dict[int, float] = {}
        answers: dict[int, str | int | None] = {}
        for part in (a for r in results for a in r.results if a.query.task == task.name):
            where = task.positions(DEV, part.query.part or (0, 0))
            values |= zip(where, part.values, strict=True)
            answers |= zip(where, part.answers, strict=True)
        met = tuple(sorted(values))
        mean, error = mean_and_error([values[i] for i in met])
        return QueryResult(
            Query(task.name, DEV),
            tuple(values[i] for i in met),
            tuple(answers[i] for i in met),
            mean,
            error,
            None if len(met) == len(task.splits[DEV]) else met,
        )

    def _tokens(self, results: Sequence[JobResult]) -> tuple[int, ...]:
        """By task; empty where not all were counted."""
        if any(len(r.execution.tokens) != len(r.job.queries) for r in results):
            return ()
        sums = dict.fromkeys((task.name for task in self.tasks), 0)
        for result in results:
            for query, count in zip(result.job.queries, result.execution.tokens, strict=True):
                sums[query.task] += count
        return tuple(sums.values())


def rungs_of(config: RacingConfig | None, tasks: Sequence[Task]) -> Rungs | None:
    """The rungs of a run; None where it does not race.

    Raises:
        EvoError: a task's examples can't be met one after the other.
    """
    if config is None:
        return None
    for task in tasks:
        why = ""
        if task.metric.row_format is None:
            why = "is scored by a function of all its examples at once"
        elif task.metric.weighted:
            why = f"is scored by {task.metric.name}, whose examples weigh differently"
        elif len(task.splits[DEV]) < 2:
            why = "has one dev example"
        if why:
            raise EvoError(
                f"racing: task {task.name!r} {why}, so a part of it says nothing of the whole. "
                "Remove racing from the config, or the task"
            )
    sizes = [len(task.splits[DEV]) for task in tasks]
    # Of few examples a rung may bring none, or all that are left.
    ends = {
        tuple(rung_ends(n, (share,))[0] for n in sizes): share for share in reversed(config.rungs)
    }
    ends.pop(tuple(sizes), None)
    return Rungs(tuple(tasks), tuple(reversed(ends.values())))


def restricted(found: QueryResult, positions: Sequence[int]) -> QueryResult:
    """What a whole result would have been on some of the examples only."""
    values = tuple(found.values[i] for i in positions)
    answers = tuple(found.answers[i] for i in positions)
    mean, error = mean_and_error(values)
    return replace(
        found,
        values=values,
        answers=answers,
        mean=mean,
        standard_error=error,
        positions=tuple(positions),
    )
