"""Rungs: the parts of the dev examples that candidates of a race meet in turn, and the joined result."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cluster.jobs import Execution, Job, JobResult, Query, QueryResult, Timing
from evo.config.racing import RacingConfig
from evo.errors import EvoError
from fitness.racing import rung_ends
from fitness.splits import DEV
from fitness.statistics import mean_and_error
from fitness.tasks.task import Task


@dataclass(frozen=True, slots=True)
class Rungs:
    """The rungs of a run; each has the same share of every task's dev examples.

    Attributes:
        tasks: the run's tasks.
        shares: of the examples met after each rung but the last, ascending.
        confidence: of each comparison by which a candidate is dropped.
    """

    tasks: tuple[Task, ...]
    shares: tuple[float, ...]
    confidence: float

    def __len__(self) -> int:
        """The number of rungs; the last one ends at the last example."""
        return len(self.shares) + 1

    def queries(self, first: int = 0, stop: int | None = None) -> tuple[Query, ...]:
        """Return the queries of the rungs from ``first`` to before ``stop``, one for each rung and task.

        One for each rung, so that batches, and with them the last bits of scores, do not depend on the
        number of rungs in a job.
        """
        ends = [(0, *rung_ends(len(task.splits[DEV]), self.shares)) for task in self.tasks]
        return tuple(
            Query(task.name, DEV, part=(end[rung], end[rung + 1]))
            for rung in range(first, len(self) if stop is None else stop)
            for task, end in zip(self.tasks, ends, strict=True)
            if end[rung] < end[rung + 1]  # a task may have fewer examples than there are rungs
        )

    def met(self, rungs: int) -> tuple[int, ...]:
        """Return the number of examples met after ``rungs`` rungs, by task."""
        return tuple(
            rung_ends(len(task.splits[DEV]), self.shares)[rungs - 1] for task in self.tasks
        )

    def joined(self, results: Sequence[JobResult]) -> JobResult:
        """Join the results of an individual's rungs so far, given in order; examples in the file's order.

        The joined result is a failure if the last rung failed, and has positions if examples are missing.
        """
        last = results[-1]
        queries = tuple(Query(task.name, DEV) for task in self.tasks)
        found = tuple(self._joined(task, results) for task in self.tasks) if last.ok else ()
        timings = [r.timing for r in results]
        timing = Timing(
            sum(t.build_s for t in timings),
            sum(t.model_s for t in timings),
            sum(t.score_s for t in timings),
        )
        attempt = max(r.job.attempt for r in results)
        job = Job(last.job.recipe, queries, last.job.key, attempt)
        execution = Execution(last.execution.weights, self._tokens(results))
        at_s = max(r.at_s for r in results)
        return JobResult(job, found, last.host, timing, last.error, at_s, execution)

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
        """Return the number of tokens by task; empty if a rung has no count."""
        if any(len(r.execution.tokens) != len(r.job.queries) for r in results):
            return ()
        sums = dict.fromkeys((task.name for task in self.tasks), 0)
        for result in results:
            for query, count in zip(result.job.queries, result.execution.tokens, strict=True):
                sums[query.task] += count
        return tuple(sums.values())


def rungs_of(config: RacingConfig | None, tasks: Sequence[Task]) -> Rungs | None:
    """Return the rungs of a run; None if it does not race.

    Raises:
        EvoError: the score of a task cannot be estimated from a part of its examples.
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
            why = "has only one dev example"
        if why:
            raise EvoError(
                f"racing: task {task.name!r} {why}, so its score cannot be estimated from a part of "
                "its examples. Remove racing from the config, or the task"
            )
    sizes = [len(task.splits[DEV]) for task in tasks]
    # With few examples, two rungs may end at the same example, or one at the last.
    ends = {
        tuple(rung_ends(n, (share,))[0] for n in sizes): share for share in reversed(config.rungs)
    }
    ends.pop(tuple(sizes), None)
    return Rungs(tuple(tasks), tuple(reversed(ends.values())), config.confidence)


def restricted(found: QueryResult, positions: Sequence[int]) -> QueryResult:
    """Return a whole result reduced to the examples at ``positions``."""
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
