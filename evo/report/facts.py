"""The facts of a report: plain data for the page and the live view, read from the run directory."""

from collections.abc import Callable
from typing import TypeVar

from evo.errors import EvoError
from evo.lineage import Lineage
from evo.report.contract import Facts, RunFacts
from evo.report.data.reading import read
from evo.report.data.run_data import RunData
from evo.report.sections.ancestry import NO_FAMILY, family
from evo.report.sections.changed import changed
from evo.report.sections.composition import path, shares
from evo.report.sections.cost import cost, events
from evo.report.sections.diversity import diversity
from evo.report.sections.examples import comparison
from evo.report.sections.fitness import fitness
from evo.report.sections.headline import compared_on, headline, scores
from evo.report.sections.operators import operators
from evo.report.status import RunStatus, status_of
from fitness.splits import SPLITS

PartT = TypeVar("PartT")


def facts(lineage: Lineage) -> Facts:
    """Everything that a report shows; ``evo.report.contract`` describes each part.

    Works on a run that is running, on one where only the founders were evaluated, and on one with damaged
    files: ``problem`` names what could not be read.
    """
    data = read(lineage)
    status = status_of(data)
    problems = [status.problem] if status.problem else []

    def tried(part: Callable[[], PartT]) -> PartT | None:
        try:
            return part()
        except EvoError as error:
            problems.append(str(error))
            return None

    winner, split = data.winner, compared_on(data)
    named = [] if winner is None else [winner]
    recipe = next(iter((tried(lambda: data.recipes(named)) or {}).values()), None)
    founder = data.founder
    found = None
    if winner is not None and founder is not None and split is not None:
        found = tried(lambda: comparison(data, winner, founder, split))
    table = scores(data)
    return {
        "run": _run(data, status),
        "headline": headline(data, found),
        "scores": table,
        "fitness": fitness(data, table),
        "family": tried(lambda: family(data)) or NO_FAMILY,
        "shares": None if recipe is None else shares(data, recipe),
        "path": None if recipe is None else path(data, recipe),
        "changed": None if found is None or winner == founder else changed(data, found),
        "diversity": tried(lambda: diversity(data)),
        "operators": operators(data),
        "cost": cost(data),
        "events": events(data),
        "problem": "\n".join(dict.fromkeys(problems)) or None,
    }


def _run(data: RunData, status: RunStatus) -> RunFacts:
    times = data.events.column("time").to_pylist()
    return {
        "name": data.run_dir.resolve().name,
        "run_dir": str(data.run_dir),
        "state": status.state,
        "algorithm": data.summary.algorithm if data.summary else status.algorithm,
        "seed": data.config.get("seed"),
        "started": min(times).isoformat() if times else None,
        "updated": status.updated.isoformat() if status.updated else None,
        "generations": status.generations,
        "evaluations": status.evaluations,
        "budget": status.budget,
        "failed": status.failed,
        "tasks": [
            {"name": t.name, "metric": t.metric, "weight": t.weight if t.share > 0 else -t.weight}
            for t in data.tasks
        ],
        "splits": {split: _examples(data, split) for split in SPLITS},
    }


def _examples(data: RunData, split: str) -> int | None:
    """The number of examples of a split, over all tasks; None if nothing was scored on it."""
    for individual in dict.fromkeys((data.winner, data.founder, *data.founders)):
        if individual is not None and data.scores(individual, split):
            return data.examples(individual, split)
    return None
