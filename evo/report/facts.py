"""What a report says of a run: plain data for the page and the live view, from the run's folder alone."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np

from evo.errors import EvoError
from evo.lineage import Lineage
from evo.lineage.storage.records import Record
from evo.report.contract import Facts, RunFacts, State
from evo.report.data.reading import read
from evo.report.data.run_data import RunData
from evo.report.sections.ancestry import NO_FAMILY, family
from evo.report.sections.changed import changed
from evo.report.sections.composition import path, shares
from evo.report.sections.cost import cost, events
from evo.report.sections.diversity import diversity
from evo.report.sections.examples import comparison
from evo.report.sections.fitness import fitness
from evo.report.sections.headline import SPLITS, compared_on, headline, scores
from evo.report.sections.operators import operators
from evo.run_dir import RunDir

PartT = TypeVar("PartT")


def facts(lineage: Lineage) -> Facts:
    """All that a report says; ``evo.report.contract`` describes every part.

    Works on a run that is still going, on one where only the founders are known, and on one with
    damaged files: ``problem`` says what could not be read.
    """
    source = read(lineage)
    problems = list(source.problems)

    def tried(part: Callable[[], PartT]) -> PartT | None:
        try:
            return part()
        except EvoError as error:
            problems.append(str(error))
            return None

    winner, split = source.winner, compared_on(source)
    named = [] if winner is None else [winner]
    recipe = next(iter((tried(lambda: source.recipes(named)) or {}).values()), None)
    founder = source.founder
    found = None
    if winner is not None and founder is not None and split is not None:
        found = tried(lambda: comparison(source, winner, founder, split))
    table = scores(source)
    return {
        "run": _run(source, tried(lambda: source.pending) or []),
        "headline": headline(source, found),
        "scores": table,
        "fitness": fitness(source, table),
        "family": tried(lambda: family(source)) or NO_FAMILY,
        "shares": None if recipe is None else shares(source, recipe),
        "path": None if recipe is None else path(source, recipe),
        "changed": None if found is None or winner == founder else changed(source, found),
        "diversity": tried(lambda: diversity(source)),
        "operators": operators(source),
        "cost": cost(source),
        "events": events(source),
        "problem": "\n".join(dict.fromkeys(problems)) or None,
    }


def _run(source: RunData, pending: Sequence[Record]) -> RunFacts:
    trials = source.dev_scores
    state: State = "running" if RunDir(source.run_dir).holder() else "stopped"
    if RunDir(source.run_dir).is_starting:
        state = "beginning"
    algorithm = source.config.get("algorithm", {}).get("name", "unknown")
    times = source.events.column("time").to_pylist()
    journal = RunDir(source.run_dir).journal
    changed_at = [datetime.fromtimestamp(journal.stat().st_mtime, UTC)] if journal.exists() else []
    updated = max([*times, *changed_at], default=None)
    return {
        "name": source.run_dir.resolve().name,
        "run_dir": str(source.run_dir),
        "state": "finished" if source.finished else state,
        "algorithm": source.summary.algorithm if source.summary else algorithm,
        "seed": source.config.get("seed"),
        "started": min(times).isoformat() if times else None,
        "updated": updated.isoformat() if updated else None,
        "generations": source.generations,
        "evaluations": len(trials.ids) + len(pending),
        "budget": source.config.get("budget", {}).get("evaluations"),
        "failed": int(np.isnan(trials.fitness).sum()) + sum(bool(r.error) for r in pending),
        "tasks": [
            {"name": t.name, "metric": t.metric, "weight": t.weight if t.share > 0 else -t.weight}
            for t in source.tasks
        ],
        "splits": {split: _examples(source, split) for split in SPLITS[::-1]},
    }


def _examples(source: RunData, split: str) -> int | None:
    """How many examples a split has, over all tasks, as far as anybody was scored on it."""
    for individual in dict.fromkeys((source.winner, source.founder, *source.founders)):
        if individual is not None and source.scores(individual, split):
            return source.examples(individual, split)
    return None
