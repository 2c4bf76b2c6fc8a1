"""Task: examples in splits, the requests that they ask of a model, and the scores of its outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from fitness.examples import Example, TaskError, read_jsonl
from fitness.metrics.metric import (
    Answer,
    ExampleScore,
    Metric,
    TaskOptions,
    Voting,
    checked_score,
)
from fitness.racing import example_order
from fitness.requests import Output, Request
from fitness.splits import Split
from fitness.statistics import by_example, majority_vote, mean_and_error, medoid
from fitness.tasks.spec import TaskSpec, check_disjoint, check_rows, metric_of, options_of

__all__ = ["Answer", "Part", "Scores", "Task", "TaskError", "TaskSpec", "load_task"]

Part: TypeAlias = tuple[int, int]
"""Some examples of a split: first and end position in the order of :func:`fitness.racing.example_order`."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one model on one split.

    Attributes:
        values: one for each example, in the order of the file.
        answers: the model's answers: the index of a choice, a text, or None where not known.
        weights: the examples' weights in the mean; None when all are equal.
    """

    values: tuple[float, ...]
    answers: tuple[Answer | None, ...]
    weights: tuple[float, ...] | None = None

    @property
    def mean(self) -> float:
        """Mean of ``values``, weighted by ``weights``."""
        return mean_and_error(self.values, self.weights)[0]

    @property
    def standard_error(self) -> float:
        """Standard error of ``mean``, from n − 1; 0.0 when there is one example."""
        return mean_and_error(self.values, self.weights)[1]


@dataclass(frozen=True, slots=True)
class Task:
    """Examples in splits and the metric that scores them. Made by `load_task`."""

    name: str
    metric: Metric
    options: TaskOptions
    splits: Mapping[Split, tuple[Example, ...]]

    @property
    def higher_is_better(self) -> bool:
        return self.metric.higher_is_better

    @property
    def supports_answers(self) -> bool:
        """Whether a model can be asked for its answers alone, so that an ensemble can vote."""
        return self.metric.voting is not None

    def requests(self, split: Split, part: Part | None = None) -> list[Request]:
        """The requests that give a model's scores on ``split``, or on a part of it."""
        rows = (e.row for e in self._examples(split, part))
        return [r for row in rows for r in self.metric.requests(row, self.options)]

    def score(self, split: Split, outputs: Sequence[Output], part: Part | None = None) -> Scores:
        """Scores from the outputs of ``requests(split, part)``, in that order.

        Raises:
            ValueError: not as many outputs as requests.
            TaskError: the metric did not return finite numbers.
        """
        examples = self._examples(split, part)
        counts = [len(self.metric.requests(e.row, self.options)) for e in examples]
        parts = _parts(outputs, counts)
        scored = [
            s
            for example, part_of in zip(examples, parts, strict=True)
            for s in self.metric.example_scores(example.row, part_of, self.options)
        ]
        return _scores(scored)

    def positions(self, split: Split, part: Part) -> tuple[int, ...]:
        """The indices of the examples of ``split`` in a part, in the order of evaluation."""
        return example_order(len(self._examples(split)))[slice(*part)]

    def answer_requests(self, split: Split) -> list[Request]:
        """The requests that give a model's answers on ``split``.

        Raises:
            TaskError: the metric has no answers (see ``supports_answers``).
        """
        voting = self._voting()
        rows = (e.row for e in self._examples(split))
        return [r for row in rows for r in voting.requests(row, self.options)]

    def answers(self, split: Split, outputs: Sequence[Output]) -> tuple[Answer, ...]:
        """One answer for each example, from the outputs of ``answer_requests(split)``.

        Raises:
            ValueError: not as many outputs as requests.
            TaskError: the metric has no answers.
        """
        voting = self._voting()
        examples = self._examples(split)
        counts = [len(voting.requests(e.row, self.options)) for e in examples]
        return tuple(
            voting.answer(example.row, part, self.options)
            for example, part in zip(examples, _parts(outputs, counts), strict=True)
        )

    def combine_answers(self, answers_by_member: Sequence[Sequence[Answer]]) -> tuple[Answer, ...]:
        """An ensemble's answers: the majority's, or for free text the medoid; in a tie the first member's.

        Args:
            answers_by_member: shape (members, examples).

        Raises:
            TaskError: the metric has no answers.
            ValueError: no members, or members that answered different numbers of examples.
        """
        if not self._voting().free_text:
            return tuple(majority_vote(answers_by_member))
        return tuple(medoid([str(a) for a in each]) for each in by_example(answers_by_member))

    def score_answers(self, split: Split, answers: Sequence[Answer]) -> Scores:
        """Scores of answers, one for each example.

        Raises:
            ValueError: not as many answers as examples.
            TaskError: the metric has no answers, or did not return finite numbers.
        """
        voting = self._voting()
        examples = self._examples(split)
        if len(answers) != len(examples):
            raise ValueError(f"{len(examples)} examples need as many answers, got {len(answers)}")
        pairs = zip(examples, answers, strict=True)
        name = self.options.function or self.metric.name
        scored = [
            (checked_score(name, e.row, voting.score(e.row, a, self.options)), a) for e, a in pairs
        ]
        return _scores([replace(score, answer=a) for score, a in scored])

    def _examples(self, split: Split, part: Part | None = None) -> tuple[Example, ...]:
        if split not in self.splits:
            raise TaskError(f"task {self.name!r} has no split {split!r}, only {list(self.splits)}.")
        examples = self.splits[split]
        return examples if part is None else tuple(examples[i] for i in self.positions(split, part))

    def _voting(self) -> Voting:
        if self.metric.voting is None:
            raise TaskError(
                f"task {self.name!r}: metric {self.metric.name!r} gives no answers to vote on."
            )
        return self.metric.voting


def _parts(outputs: Sequence[Output], counts: Sequence[int]) -> list[Sequence[Output]]:
    if len(outputs) != sum(counts):
        raise ValueError(f"{sum(counts)} requests need as many outputs, got {len(outputs)}")
    parts, at = [], 0
    for count in counts:
        parts.append(outputs[at : at + count])
        at += count
    return parts


def _scores(scored: Sequence[ExampleScore]) -> Scores:
    weights = tuple(s.weight for s in scored)
    return Scores(
        tuple(s.value for s in scored),
        tuple(s.answer for s in scored),
        None if all(w == 1.0 for w in weights) else weights,
    )


def load_task(spec: TaskSpec) -> Task:
    """Read and check a task's files.

    Raises:
        TaskError: an option, file or row is wrong, or two splits share an input. The message
            names the file, line and key, and what would be right.
    """
    metric = metric_of(spec)
    options = options_of(spec, metric)
    if metric.row_format is None:
        splits: dict[Split, tuple[Example, ...]] = {
            split: (Example({"data": text}, 0),) for split, text in spec.data
        }
        sources = {split: f"data.{split}" for split, _ in spec.data}
    else:
        limits = dict(spec.limits)
        sources = dict(spec.files)
        splits = {}
        for split, path in spec.files:
            splits[split] = read_jsonl(Path(path), limit=limits.get(split))
            check_rows(spec, metric, options, path, splits[split])
    check_disjoint(spec, metric, splits, sources)
    return Task(spec.name, metric, options, splits)


def check_tasks_disjoint(tasks: Sequence[Task]) -> None:
    """Check that no split of a task shares an input with another split of another task.

    Raises:
        TaskError: names both tasks, splits and lines.
    """
    seen: dict[tuple[str, ...], tuple[str, str, int]] = {}
    for task in tasks:
        if task.metric.row_format is None:
            continue  # only the function knows what its data string stands for
        for split, examples in task.splits.items():
            for example in examples:
                key = task.metric.row_format.identity(example.row)
                other, other_split, line = seen.setdefault(key, (task.name, split, example.line))
                if other_split != split:
                    raise TaskError(
                        f"tasks {other!r} ({other_split}, line {line}) and {task.name!r} ({split}, "
                        f"line {example.line}) share the input {key[0][:60]!r}. A score on examples "
                        "that were searched on is not valid: keep each input in one split."
                    )
