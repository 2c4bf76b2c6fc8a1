"""The end of a run: choose the winner, and score it and the baselines."""

from dataclasses import dataclass

from evo.algorithms import Candidate, Start, traits
from evo.config.schema import RunConfig
from evo.errors import EvoError
from evo.final.baselines import score_baselines
from evo.final.ensemble import score_ensemble
from evo.final.scorer import FinalScorer
from evo.final.selection import SelectionPolicy
from evo.run_dir import RunDir
from evo.run_dir.summary import ResultRow, TimeUse
from evo.search.loop import Search


@dataclass(frozen=True, slots=True)
class Outcome:
    """The winner, and the rows of the table of results."""

    winner: Candidate
    row: ResultRow
    ensemble: ResultRow | None
    baselines: tuple[ResultRow, ...]


def finalize(
    config: RunConfig, start: Start, search: Search, scorer: FinalScorer, run_dir: RunDir
) -> Outcome:
    """Choose the winner on select; score it, the ensemble of finalists and the baselines on test.

    Raises:
        EvoError: nothing has been evaluated yet, every finalist failed on select, or every candidate of a
            baseline failed.
    """
    exact = search.exact()
    if not exact:
        raise EvoError("nothing has been evaluated yet: iterate over the run first")
    voters = traits(config.algorithm).voters
    order = scorer.choose(SelectionPolicy(max(config.finalists, voters)), exact, "search")
    winner = order[0]
    row = scorer.row("winner", "winner", winner.candidate, winner.fitness)
    members = [s.candidate for s in order[:voters]]
    ensemble = score_ensemble(scorer, "ensemble", members) if members else None
    baselines = score_baselines(
        config,
        start,
        known=search.scored,
        evaluations=search.evaluations,
        scorer=scorer,
        run_dir=run_dir,
    )
    return Outcome(winner.candidate, row, ensemble, tuple(baselines))


def time_use(search: Search, hosts: int, startup_s: float, final_s: float) -> TimeUse:
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
        other_share=max(0.0, capacity - busy.total_s) / capacity,  # pool, coordinator, waiting
    )
