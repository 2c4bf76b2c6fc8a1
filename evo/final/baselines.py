"""What a winner is compared with: founders, their average and vote, random search, static merges."""

import itertools
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from evo.algorithms import Candidate, Scored, Start, make
from evo.algorithms.random_search import RandomSearchSettings
from evo.config.schema import BudgetConfig, RunConfig
from evo.errors import EvoError
from evo.final.finals import Finals
from evo.lineage.read.best_so_far import STATIC
from evo.lineage.storage.writer import LineageWriter
from evo.run_dir import RunDir
from evo.run_dir.summary import ResultRow
from evo.search.evaluator import Evaluator
from evo.search.loop import Search
from fitness.splits import DEV
from operators.merge import MERGES, merge
from operators.recipe import Recipe, describe, linear
from operators.variation.selection import ranking

# (scales, densities) of the grids: 40, 48 and 48 merges, as many as README's table used.
_SCALES = {"task_arithmetic": 40, "ties": 8, "dare_ties": 8}
_DENSITIES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


def uniform_average(founders: Sequence[Recipe]) -> Recipe:
    """Σ θᵢ / n."""
    return linear([(founder, 1.0 / len(founders)) for founder in founders])


def static_grid(method: str, start: Start, size: int | None = None) -> list[Candidate]:
    """The merges of all founders by ``method``, over a grid of scales (and densities).

    Every founder has weight 1; scales are evenly spaced over the parameter's search range in MERGES,
    its lower end left out (there nothing is merged). ``size`` is how many merges there are at most.
    """
    entry = MERGES[method]
    scale = entry.parameter("lambda")
    if scale is None or scale.search is None:
        raise ValueError(f"{method} has no scale to tune")
    low, high = scale.search
    densities: tuple[float | None, ...] = _DENSITIES if entry.parameter("density") else (None,)
    count = _SCALES[method] if size is None else max(1, size // len(densities))
    scales = np.linspace(low, high, count + 1)[1:]
    parents = tuple(f.id for f in start.founders)
    candidates = []
    for value, density in itertools.product(scales, densities):
        params = {"lambda": float(value)} | ({} if density is None else {"density": density})
        recipe = merge(method, start.founders, base=start.base, params=params, seed=start.seed)
        candidates.append(Candidate(recipe, f"{STATIC}{method}", parents, start.seed))
    return candidates


def score_baselines(
    config: RunConfig,
    start: Start,
    *,
    known: Mapping[str, Scored],
    evaluations: int,
    evaluator: Evaluator,
    finals: Finals,
    run_dir: RunDir,
) -> list[ResultRow]:
    """Every founder, their average, their ensemble, and what ``config.baselines`` adds.

    ``known`` has the dev fitness of the individuals that the run itself scored, by id;
    ``evaluations`` is what its search used, and random search gets the same.
    """
    founders = [Candidate(f, "founder") for f in start.founders]
    dev = [known[c.id].fitness if c.id in known else None for c in founders]
    entries = [
        finals.entry(describe(f), "founder", candidate, fitness)
        for f, candidate, fitness in zip(start.founders, founders, dev, strict=True)
    ]
    parents = tuple(c.id for c in founders)
    average = Candidate(uniform_average(start.founders), "average", parents)
    entries.append(finals.entry("uniform average", "average", average, None))
    order = ranking([math.nan if fitness is None else fitness for fitness in dev])
    vote = finals.ensemble("founders' ensemble", [founders[i] for i in order])
    if vote is not None:
        entries.append(vote)
    if config.baselines.random_search:
        # No journal of its own: until the run ends, all of it is in that of the run.
        folder = run_dir.baseline("random_search").lineage
        shutil.rmtree(folder, ignore_errors=True)  # of a sitting that did not get to the end
        lineage = LineageWriter(folder)
        search = Search(
            make(RandomSearchSettings(), start),
            evaluator,
            BudgetConfig(evaluations=evaluations),
            lineage,
            races=False,
        )
        for _ in search:
            pass
        entries.append(
            _best(
                "random search",
                "random_search",
                search.ranked(),
                finals,
                config.finalists,
                search.evaluations,
            )
        )
    for method in config.baselines.static:
        grid = static_grid(method, start)
        tuned = _tuned(grid, evaluator, finals)
        entries.append(
            _best(f"{method}, tuned", "static", tuned, finals, config.finalists, len(grid))
        )
    return entries


def _tuned(grid: Sequence[Candidate], evaluator: Evaluator, finals: Finals) -> list[Scored]:
    """The grid by dev fitness, best first, without what failed."""
    scored = []
    results = evaluator.run([c.recipe for c in grid], DEV)
    for candidate, result in zip(grid, results, strict=True):
        finals.record(candidate, result)
        scored.append(Scored(candidate, evaluator.objective.score(result).fitness))
    alive = [s for s in scored if math.isfinite(s.fitness)]
    return sorted(alive, key=lambda s: -s.fitness)


def _best(
    name: str,
    kind: str,
    ranked: Sequence[Scored],
    finals: Finals,
    finalists: int,
    evaluations: int,
) -> ResultRow:
    """The row of a baseline's winner, chosen as the run's own: by select among the best by dev."""
    order = finals.order(ranked, finalists)
    if not order:
        raise EvoError(f"{name}: every candidate failed; see the lineage's evaluations")
    entry = finals.entry(name, kind, order[0].candidate, order[0].fitness)
    return replace(entry, evaluations=evaluations)
