"""Ending: who has won, what the winner and the baselines score on test, and where the time went."""

from pathlib import Path

from evo.algorithms import Candidate, Start, traits
from evo.config.schema import RunConfig
from evo.errors import EvoError
from evo.final.baselines import score_baselines
from evo.final.finals import Entry, Finals
from evo.search.evaluator import Evaluator
from evo.search.loop import Search


def end(
    config: RunConfig,
    start: Start,
    search: Search,
    evaluator: Evaluator,
    finals: Finals,
    run_dir: Path,
) -> tuple[Candidate, dict[str, object]]:
    """The winner by select, and the rows of the final table as ``summary.json`` has them.

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
    ensemble: Entry | None = None
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
    return winner.candidate, {
        "winner": entry.as_json(),
        "ensemble": ensemble.as_json() if ensemble else None,
        "baselines": [b.as_json() for b in baselines],
    }


def times(search: Search, hosts: int, startup_s: float, final_s: float) -> dict[str, float]:
    """Where a run's time went. ``shares`` are of the hosts' time in the search: hosts × seconds."""
    busy, capacity = search.busy, hosts * search.seconds
    shares = {"build": busy.build_s, "model": busy.model_s, "score": busy.score_s}
    shares["other"] = max(0.0, capacity - busy.total_s)  # Ray, coordinator, waiting
    return {
        "startup_s": startup_s,
        "search_s": search.seconds,
        "final_s": final_s,
        "evaluations_per_second": search.evaluations / max(search.seconds, 1e-9),
    } | {f"{name}_share": seconds / max(capacity, 1e-9) for name, seconds in shares.items()}
