"""Fitness over the generations: the best so far, and the mean and spread of each one's new individuals."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evo.errors import EvoError
from evo.lineage.read.lineage import Lineage
from evo.report.contract import BaselineLine, Curve, FitnessFacts, ScoreRow
from evo.report.data.dev_scores import dev_scores_of
from evo.report.data.reading import TABLES
from evo.report.data.run_data import Floats, RunData
from evo.run_dir import RunDir

POINTS = 400
RANDOM = "random_search"
SPREAD = "10th to 90th percentile of the generation's new individuals"


def fitness(data: RunData, scores: list[ScoreRow]) -> FitnessFacts:
    """A point for each generation, as many as are kept; baselines by their dev scores."""
    evaluated = data.dev_scores
    numbers, first, counts = np.unique(evaluated.generation, return_index=True, return_counts=True)
    ends = first + counts - 1  # evaluated are recorded generation after generation
    best = evaluated.best_so_far[ends] if len(ends) else np.empty(0)
    kept = thinned(best, POINTS)
    mean, low, high = (np.full(len(kept), np.nan) for _ in range(3))
    for at, generation in enumerate(kept):
        values = evaluated.fitness[first[generation] : ends[generation] + 1]
        alive = values[np.isfinite(values)]
        if len(alive):
            mean[at] = alive.mean()
            low[at], high[at] = np.percentile(alive, (10, 90))
    seconds = np.maximum.accumulate(evaluated.at_seconds) if len(ends) else evaluated.at_seconds
    return {
        "generation": numbers[kept].tolist(),
        "evaluations": (ends[kept] + 1).tolist(),
        "seconds": seconds[ends[kept]].tolist(),
        "best": known(best[kept]),
        "mean": known(mean),
        "low": known(low),
        "high": known(high),
        "spread": SPREAD,
        "baselines": _baselines(data, scores),
    }


def thinned(best: Floats, points: int) -> NDArray[np.int64]:
    """Positions of at most ``points`` of a curve: first, last, every improvement, and evenly between.

    Where there are more improvements than that, an even choice of them.
    """
    count = len(best)
    if count <= points:
        return np.arange(count)
    filled = np.where(np.isnan(best), -np.inf, best)
    better = np.flatnonzero(np.diff(filled) > 0) + 1
    musts = np.union1d(better, (0, count - 1))
    if len(musts) > points:
        return musts[np.linspace(0, len(musts) - 1, points).round().astype(np.int64)]
    others = np.setdiff1d(np.arange(count), musts)
    room = min(points - len(musts), len(others))
    more = others[np.linspace(0, len(others) - 1, room).round().astype(np.int64)]
    return np.union1d(musts, more)


def known(values: Floats) -> list[float | None]:
    """Plain numbers, null for NaN."""
    return [None if np.isnan(v) else float(v) for v in values]


def _baselines(data: RunData, scores: list[ScoreRow]) -> list[BaselineLine]:
    lines: list[BaselineLine] = [
        {"name": r["name"], "kind": r["kind"], "value": r["dev"], "curve": None}
        for r in scores
        if r["kind"] not in ("winner", RANDOM) and r["dev"] is not None
    ]
    curve = best_so_far(data.run_dir / "baselines" / RANDOM, data.shares)
    found = next((r["dev"] for r in scores if r["kind"] == RANDOM), None)
    if curve is not None and found is None:
        found = curve["best"][-1]  # it is still being made
    if found is not None:
        lines.append({"name": "random search", "kind": RANDOM, "value": found, "curve": curve})
    return lines


def best_so_far(run_dir: Path, shares: Mapping[str, float]) -> Curve | None:
    """The curve of a search in a folder of its own, by evaluations; None where it can't be read."""
    if not RunDir(run_dir).lineage.is_dir():
        return None
    lineage = Lineage(run_dir)
    try:
        evaluations = lineage.table("evaluations", TABLES["evaluations"])
        individuals = lineage.table("individuals", TABLES["individuals"])
    except EvoError:
        return None
    evaluated = dev_scores_of(individuals, evaluations, shares)
    if not evaluated.ids:
        return None
    kept = thinned(evaluated.best_so_far, POINTS)
    return {"evaluations": (kept + 1).tolist(), "best": known(evaluated.best_so_far[kept])}
