"""Baselines: the founders, their average and ensemble, random search, and tuned static merges."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace

from evo.algorithms import Candidate, Scored, Start, make
from evo.algorithms.random_search import RandomSearchSettings
from evo.config.schema import BudgetConfig, RunConfig
from evo.final.ensemble import score_ensemble
from evo.final.scorer import FinalScorer
from evo.final.selection import SelectionPolicy
from evo.final.static_merges import static_grid
from evo.lineage.storage.writer import LineageWriter
from evo.run_dir import RunDir
from evo.run_dir.summary import ResultRow
from evo.search.evaluator import Evaluator
from evo.search.loop import Search
from fitness.splits import DEV
from operators.recipe import Recipe, describe, linear
from operators.variation.selection import ranking


def uniform_average(founders: Sequence[Recipe]) -> Recipe:
    """Return Σ θᵢ / n."""
    return linear([(founder, 1.0 / len(founders)) for founder in founders])


def score_baselines(
    config: RunConfig,
    start: Start,
    *,
    known: Mapping[str, Scored],
    evaluations: int,
    scorer: FinalScorer,
    run_dir: RunDir,
) -> list[ResultRow]:
    """Return the rows of the founders, their average, their ensemble, and those in ``config.baselines``.

    Args:
        config: of the run.
        start: what the run's algorithm started from.
        known: the individuals of the run's search, by id; their dev fitness is used.
        evaluations: the number that the run's search used; random search gets the same.
        scorer: scores and records the individuals.
        run_dir: holds a lineage of its own for random search.

    Raises:
        EvoError: every candidate of a baseline failed.
    """
    policy = SelectionPolicy(config.finalists)
    rows = _founder_rows(start, known, scorer)
    if config.baselines.random_search:
        tried = _random_search(start, evaluations, scorer.evaluator, run_dir)
        rows.append(_winner_row("random search", "random_search", tried, policy, scorer))
    for method in config.baselines.static:
        grid = static_grid(method, start)
        fitness = scorer.score(grid, DEV)
        tried = [Scored(c, f.fitness) for c, f in zip(grid, fitness, strict=True)]
        rows.append(_winner_row(f"{method}, tuned", "static", tried, policy, scorer))
    return rows


def _founder_rows(
    start: Start, known: Mapping[str, Scored], scorer: FinalScorer
) -> list[ResultRow]:
    """Return the rows of each founder, their average, and their ensemble if the tasks allow one."""
    founders = [Candidate(f, "founder") for f in start.founders]
    dev = [known[c.id].fitness if c.id in known else None for c in founders]
    rows = [
        scorer.row(describe(c.recipe), "founder", c, fitness)
        for c, fitness in zip(founders, dev, strict=True)
    ]
    parents = tuple(c.id for c in founders)
    average = Candidate(uniform_average(start.founders), "average", parents)
    rows.append(scorer.row("uniform average", "average", average, None))
    order = ranking([math.nan if fitness is None else fitness for fitness in dev])
    ensemble = score_ensemble(scorer, "founders' ensemble", [founders[i] for i in order])
    return rows if ensemble is None else [*rows, ensemble]


def _random_search(
    start: Start, evaluations: int, evaluator: Evaluator, run_dir: RunDir
) -> list[Scored]:
    """Run random search without racing; return all that it evaluated."""
    # Its lineage has no journal: until the run ends, that of the run has all its evaluations.
    folder = run_dir.baseline("random_search").lineage
    shutil.rmtree(folder, ignore_errors=True)  # left by an interrupted finish
    search = Search(
        make(RandomSearchSettings(), start),
        evaluator,
        BudgetConfig(evaluations=evaluations),
        LineageWriter(folder),
        races=False,
    )
    for _ in search:
        pass
    return list(search.scored.values())


def _winner_row(
    name: str, kind: str, tried: Sequence[Scored], policy: SelectionPolicy, scorer: FinalScorer
) -> ResultRow:
    """Return the row of the winner among ``tried``, chosen as the run's own winner is."""
    winner = scorer.choose(policy, tried, name)[0]
    return replace(scorer.row(name, kind, winner.candidate, winner.fitness), evaluations=len(tried))
