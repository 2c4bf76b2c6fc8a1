"""Ending: who has won, what the winner and the baselines score on test, and where the time went."""

from dataclasses import dataclass

from evo.algorithms import Candidate, Start, traits
from evo.config.schema import RunConfig
from evo.errors import EvoError
from evo.final.baselines import score_baselines
from evo.final.finals import Finals
from evo.run_dir import RunDir
from evo.run_dir.summary import ResultRow, TimeUse
from evo.search.evaluator import Evaluator
from evo.search.loop import Search


@dataclass(frozen=True, slots=True)
class Outcome:
    """The winner, and the rows of the table of results."""

    winner: Candidate
    row: ResultRow
    ensemble: ResultRow | None
    baselines: tuple[ResultRow, ...]


def end(
    config: RunConfig,
    start: Start,
    search: Search,
    evaluator: Evaluator,
    finals: Finals,
    run_dir: RunDir,
) -> Outcome:
    """Choose the winner by select, and score it and the baselines.

    Raises:
        EvoError: nothing has been evaluated yet, or no finalist could be on select.
    """
    ranked = search.ranked()
    if not ranked:
        raise EvoError("nothing has been evaluated yet: iterate over the run first")
    voters = traits(config.algorithm).voters
    order = finals.order(ranked, max(config.finalists, voters))
    if not order:
        raise EvoError(
            f"every finalist failed on the select split; the first says: {finals.last_error}"
        )
    winner = order[0]
    entry = finals.entry("winner", "winner", winner.candidate, winner.fitness)
    ensemble: ResultRow | None = None
    if voters:
        ensemble = finals.ensemble("ensemble", [s.candidate for s in order[:voters]])
    baselines = score_baselines(
        config,
        start,
        known=search.scored,
        evaluations=search.evaluations,
        evaluator=evaluator,
        finals=finals,
        run_dir=run_dir,
    )
    return Outcome(winner.candidate, entry, ensemble, tuple(baselines))


def times(search: Search, hosts: int, startup_s: float, final_s: float) -> TimeUse:
    """Return where a run's time went."""
    busy, capacity = search.busy, max(hosts * search.seconds, 1e-9)
    return TimeUse(
        startup_s=startup_s,
        search_s=search.seconds,
        final_s=final_s,
        evaluations_per_second=search.evaluations / max(search.seconds, 1e-9),
        build_share=busy.build_s / capacity,
        model_share=busy.model_s / capacity,
        score_share=busy.score_s / capacity,
        other_share=max(0.0, capacity - busy.total_s) / capacity,  # Ray, coordinator, waiting
    )
