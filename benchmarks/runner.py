"""How things are compared: candidates take turns, and what is told is medians with their spread."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import log
from typing import Any

Row = Mapping[str, float]
Rows = dict[str, list[dict[str, float]]]


def turns(names: Sequence[str], repeats: int) -> Iterator[str]:
    """Every candidate once a round, and each round begins with the next one.

    What else the machine does changes from minute to minute: what is measured in turns meets the same.
    """
    for number in range(repeats):
        start = number % len(names)
        yield from (*names[start:], *names[:start])


def alternate(
    candidates: Mapping[str, Callable[[], Row]],
    repeats: int,
    keep: Callable[[Rows], object] = lambda rows: None,
) -> Rows:
    """What each candidate measured: a row of numbers for each round.

    ``keep`` is given all rows so far after each round, so that a benchmark that is stopped has not measured
    for nothing.
    """
    rows: Rows = {name: [] for name in candidates}
    for name in turns(list(candidates), repeats):
        rows[name].append(dict(candidates[name]()))
        shown = ", ".join(f"{k} {v:.4g}" for k, v in rows[name][-1].items())
        print(f"{name}: {shown}", flush=True)
        if len({len(found) for found in rows.values()}) == 1:
            keep(rows)
    return rows


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, lowest and highest: a few repeats say no more."""
    found = list(values)
    return {"median": statistics.median(found), "low": min(found), "high": max(found)}


def summary(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """The spread of each number that the rows hold."""
    return {key: spread(row[key] for row in rows) for key in rows[0]}


def medians(rows: Sequence[Row]) -> dict[str, float]:
    """The median of each number that the rows hold."""
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """b of y = a·xᵇ, by least squares of the logarithms: 1 is linear, 0 is no growth."""
    fit: Any = statistics.linear_regression([log(v) for v in x], [log(v) for v in y])
    return float(fit.slope)
