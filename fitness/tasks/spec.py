"""A task as it stands in a config, and the checks of it, of its rows and of its splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from itertools import combinations

from fitness.examples import Example, TaskError
from fitness.functions import FunctionNameError, load_function
from fitness.metrics import CALL, METRICS
from fitness.metrics.generated_text import FUNCTION
from fitness.metrics.metric import Metric, Options


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as it stands in a config.

    Attributes:
        name: shown in reports.
        metric: a name in METRICS, or a Python function's, "package.module:name".
        files: (split, path to a JSONL file) pairs; relative paths are relative to where we run.
        data: (split, string) pairs instead, given to a function that takes (module, data).
        limits: (split, number of first examples to take) pairs; all are taken otherwise.
        max_tokens: of a generated answer; the metric decides when None.
        stop: a generated answer ends before the first of these strings.
        regex: finds the number in a generated answer; its first group, if it has one.
        chat: prompts go through the tokenizer's chat template as one user turn.
        end: what must follow an exact answer: "eos", a string, or "" for anything.
        temperature: 0 is greedy.
        seed: of sampling.
    """

    name: str
    metric: str
    files: tuple[tuple[str, str], ...] = ()
    data: tuple[tuple[str, str], ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    regex: str | None = None
    chat: bool = False
    end: str = "eos"
    temperature: float = 0.0
    seed: int = 0


def metric_of(spec: TaskSpec) -> Metric:
    where = f"task {spec.name!r}"
    if ":" in spec.metric:
        if bool(spec.files) == bool(spec.data):
            raise TaskError(
                f"{where}: the function {spec.metric!r} needs either files (it scores generated "
                "text) or data (it is called with the module and a split's string)."
            )
        try:
            load_function(spec.metric)
        except FunctionNameError as error:
            raise TaskError(f"{where}: metric {error}") from None
        return CALL if spec.data else FUNCTION
    named = {n: m for n, m in METRICS.items() if m not in (CALL, FUNCTION)}
    if spec.metric not in named:
        near = get_close_matches(spec.metric, named, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise TaskError(
            f"{where}: no metric {spec.metric!r}.{hint} There are {', '.join(named)}, "
            "and Python functions as 'package.module:name'."
        )
    if spec.data or not spec.files:
        raise TaskError(
            f"{where}: {spec.metric} needs a JSONL file for each split, and no data strings."
        )
    return named[spec.metric]


def options_of(spec: TaskSpec, metric: Metric) -> Options:
    where = f"task {spec.name!r}"
    default = Options()
    options = Options(
        function=spec.metric if ":" in spec.metric else "",
        **{f.name: getattr(spec, f.name) for f in fields(Options) if f.name != "function"},
    )
    for field in fields(Options):
        changed = getattr(options, field.name) != getattr(default, field.name)
        if changed and field.name not in metric.options | {"function"}:
            raise TaskError(
                f"{where}: {field.name} has no effect on the metric {spec.metric!r}; remove it. "
                f"Options it reads: {', '.join(sorted(metric.options)) or 'none'}."
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
    spec: TaskSpec, metric: Metric, options: Options, path: str, examples: Sequence[Example]
) -> None:
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


def _missing(key: str, row: Mapping[str, object]) -> str:
    near = get_close_matches(key, row, n=1)
    hint = f" Is it {near[0]!r}?" if near else ""
    return f"no key {key!r}; the row has {', '.join(map(repr, row)) or 'no keys'}.{hint}"


def _fit(metric: str, sample: str) -> str:
    return f"Rows for {metric} look like {sample}."


def check_disjoint(
    spec: TaskSpec,
    metric: Metric,
    splits: Mapping[str, Sequence[Example]],
    sources: Mapping[str, str],
) -> None:
    """Splits are separate by construction: what is searched on is never what is reported."""
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
            "A score on examples that were searched on says nothing: remove them from one split."
        )
