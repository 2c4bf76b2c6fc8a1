"""TaskSpec, a task as a config describes it, and the checks of its options, rows and splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from itertools import combinations

from fitness.examples import Example, TaskError
from fitness.functions import FunctionNameError, load_object
from fitness.metrics import CALL, METRICS
from fitness.metrics.generated_text import FUNCTION
from fitness.metrics.metric import Metric, TaskOptions
from fitness.requests import Request
from fitness.splits import Split


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as a config describes it.

    Attributes:
        name: shown in reports.
        metric: a name in METRICS, or "package.module:name" of a function or a `Metric`.
        files: (split, path of a JSONL file) pairs; relative paths are relative to the current folder.
        data: (split, string) pairs instead, for metrics that take no files.
        limits: (split, number of examples) pairs: only the first examples of the split are taken.
        max_tokens: the maximal length of a generated answer; the metric's default when None.
        stop: a generated answer ends before the first of these strings.
        regex: finds the number in a generated answer: its first group, if it has one.
        chat: prompts go through the tokenizer's chat template as one user turn.
        end: what must follow an exact answer: "eos", a string, or "" for anything.
        temperature: of sampling; 0 is greedy decoding.
        seed: of sampling.
    """

    name: str
    metric: str
    files: tuple[tuple[Split, str], ...] = ()
    data: tuple[tuple[Split, str], ...] = ()
    limits: tuple[tuple[Split, int], ...] = ()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    regex: str | None = None
    chat: bool = False
    end: str = "eos"
    temperature: float = 0.0
    seed: int = 0


def metric_of(spec: TaskSpec) -> Metric:
    """The metric of a task.

    Raises:
        TaskError: there is none of that name, or it does not take the kind of examples that the task has.
    """
    where = f"task {spec.name!r}"
    found: object = None
    if ":" in spec.metric:
        try:
            found = load_object(spec.metric)
        except FunctionNameError as error:
            raise TaskError(f"{where}: metric {error}") from None
    if callable(found):
        if bool(spec.files) == bool(spec.data):
            raise TaskError(
                f"{where}: the function {spec.metric!r} needs either files (it scores generated "
                "text) or data (it is called with the module and a split's string)."
            )
        return CALL if spec.data else FUNCTION
    metric = found if isinstance(found, Metric) else _named_metric(spec, found)
    if metric.row_format is None and (spec.files or not spec.data):
        raise TaskError(f"{where}: {spec.metric} needs a data string for each split, and no files.")
    if metric.row_format is not None and (spec.data or not spec.files):
        raise TaskError(
            f"{where}: {spec.metric} needs a JSONL file for each split, and no data strings."
        )
    return metric


def _named_metric(spec: TaskSpec, found: object) -> Metric:
    where = f"task {spec.name!r}"
    if found is not None:
        raise TaskError(
            f"{where}: {spec.metric!r} is a {type(found).__name__}, not a metric. Name a function "
            "or an evo.Metric."
        )
    named = {n: m for n, m in METRICS.items() if m not in (CALL, FUNCTION)}
    if spec.metric not in named:
        near = get_close_matches(spec.metric, named, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise TaskError(
            f"{where}: no metric {spec.metric!r}.{hint} There are {', '.join(named)}, "
            "and functions and metrics of your own as 'package.module:name'."
        )
    return named[spec.metric]


def options_of(spec: TaskSpec, metric: Metric) -> TaskOptions:
    """The options of a task that its metric reads.

    Raises:
        TaskError: an option is not valid or the metric does not read it, or a split is given twice.
    """
    where = f"task {spec.name!r}"
    default = TaskOptions()
    options = TaskOptions(
        function=spec.metric if metric in (CALL, FUNCTION) else "",
        **{f.name: getattr(spec, f.name) for f in fields(TaskOptions) if f.name != "function"},
    )
    for field in fields(TaskOptions):
        changed = getattr(options, field.name) != getattr(default, field.name)
        if changed and field.name not in metric.options | {"function"}:
            raise TaskError(
                f"{where}: {field.name} has no effect on the metric {spec.metric!r}; remove it. "
                f"TaskOptions it reads: {', '.join(sorted(metric.options)) or 'none'}."
            )
    if problem := options.problem():
        raise TaskError(f"{where}: {problem}")
    splits = [split for split, _ in (*spec.files, *spec.data)]
    if twice := [s for s in splits if splits.count(s) > 1]:
        raise TaskError(f"{where}: split {twice[0]!r} is given twice.")
    for split, limit in spec.limits:
        if split not in dict(spec.files):
            raise TaskError(f"{where}: limit for {split!r}, which is not a split with a file.")
        if limit < 1:
            raise TaskError(f"{where}: limit for {split!r} must be at least 1, got {limit}.")
    return options


def check_rows(
    spec: TaskSpec, metric: Metric, options: TaskOptions, path: str, examples: Sequence[Example]
) -> None:
    """Check the rows of one file.

    Raises:
        TaskError: a row is not of the metric's format, or the metric asks nothing about it.
    """
    shape = metric.row_format
    assert shape is not None
    for example in examples:
        row, where = example.row, f"{path}, line {example.line}"
        for key in shape.keys:
            if key not in row:
                raise TaskError(f"{where}: {_missing(key, row)} {_fit(spec.metric, shape.sample)}")
        problem = shape.problem(row)
        if problem:
            raise TaskError(f"{where}: {problem} {_fit(spec.metric, shape.sample)}")
        if metric.check and (problem := metric.check(row, options)):
            raise TaskError(f"{where}: {problem}")
        requests: object = metric.requests(row, options)
        if not (isinstance(requests, tuple) and requests and _all_requests(requests)):
            raise TaskError(
                f"{where}: metric {spec.metric!r} asks for {str(requests)[:80]!r}. It must give a tuple "
                "of requests, such as (evo.Generate(row['prompt'], max_tokens=8),)."
            )


def _all_requests(found: tuple[object, ...]) -> bool:
    return all(isinstance(each, Request) for each in found)


def _missing(key: str, row: Mapping[str, object]) -> str:
    near = get_close_matches(key, row, n=1)
    hint = f" Is it {near[0]!r}?" if near else ""
    return f"no key {key!r}; the row has {', '.join(map(repr, row)) or 'no keys'}.{hint}"


def _fit(metric: str, sample: str) -> str:
    return f"Rows for {metric} look like {sample}."


def check_disjoint(
    spec: TaskSpec,
    metric: Metric,
    splits: Mapping[Split, Sequence[Example]],
    sources: Mapping[Split, str],
) -> None:
    """Check that no two splits share an input, so that no score is of an example that was searched on.

    Raises:
        TaskError: names both files and lines.
    """
    shape = metric.row_format
    seen = {
        split: {
            shape.identity(e.row) if shape else (e.row["data"],): e.line for e in reversed(examples)
        }
        for split, examples in splits.items()
    }
    for a, b in combinations(splits, 2):
        shared = [key for key in seen[b] if key in seen[a]]
        if not shared:
            continue
        first = min(shared, key=lambda key: seen[b][key])
        lines = ["" if shape is None else f", line {seen[s][first]}" for s in (a, b)]
        raise TaskError(
            f"task {spec.name!r}: splits {a!r} and {b!r} share {len(shared)} input"
            f"{'s' if len(shared) > 1 else ''}, the first {first[0][:60]!r} "
            f"({sources[a]}{lines[0]}; {sources[b]}{lines[1]}). "
            "A score on examples that were searched on is not valid: remove them from one split."
        )
