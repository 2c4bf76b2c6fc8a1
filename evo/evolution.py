"""Evolution: a run from founders to winner, as the command line and your own loops use it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, Self

from cluster.adapters import is_adapter
from cluster.founders import open_checkpoint
from cluster.pool import Pool
from cluster.resources import peak_memory
from evo.algorithms import Algorithm, Candidate, Start, length_penalty, make, wants_influence
from evo.algorithms.genome import GenomePlusSettings
from evo.baselines import score_baselines
from evo.config import RunConfig
from evo.errors import UserError
from evo.evaluation import Evaluator
from evo.final import Finals
from evo.lineage.reader import LINEAGE_FOLDER, Lineage
from evo.lineage.writer import FINAL, LineageWriter
from evo.search import Generation, Progress, Search
from evo.setup import check_paths, load_tasks, make_pool, open_founders
from evo.summary import versions, write_json, write_summary
from operators.recipe import Recipe

CONFIG_FILE = "config.json"


class Evolution:
    """One evolution of a population of models.

    >>> with Evolution(config, run_dir="runs/mine") as run:
    ...     for generation in run:
    ...         print(generation.number, generation.best.fitness)
    ...     summary = run.finish()
    ...     run.save("best", "mine")

    Args:
        config: what to evolve, and how; see :class:`evo.RunConfig`.
        run_dir: an empty or new folder for config, lineage and summary.
        algorithm: an algorithm of your own; by default the one that ``config.algorithm`` names.
        pool: a pool of your own, which stays open; by default one as ``config.pool`` says.
        observe: called after each evaluation.

    Raises:
        UserError: ``run_dir`` holds a run already, or the founders' vocabularies differ.
        CheckpointError, WeightsMismatchError, TaskError: founders or tasks can't be used.
    """

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path | str,
        *,
        algorithm: Callable[[Start], Algorithm] | None = None,
        pool: Pool | None = None,
        observe: Callable[[Progress], None] | None = None,
    ) -> None:
        self._began = perf_counter()
        self.config = config
        self.run_dir = Path(run_dir)
        if (self.run_dir / CONFIG_FILE).exists() or (self.run_dir / LINEAGE_FOLDER).exists():
            raise UserError(f"{self.run_dir}: holds a run already; choose another folder")
        if algorithm is None:
            check_paths(config)
        self._tasks = load_tasks(config.tasks)
        self._founders, self.notes = open_founders(config, self.run_dir)
        founders = tuple(f.founder for f in self._founders.founders)
        self._start = Start(
            founders,
            self._founders.base.founder,
            config.seed,
            self._founders.layers,
            tensors=open_checkpoint(self._founders.base.path).layout.names,
            adapters=all(is_adapter(f.path) for f in self._founders.founders),
            evaluations=config.budget.evaluations,
        )
        # Made once more below where it wants to know the models: its mistakes cost no waiting.
        chosen = algorithm(self._start) if algorithm else make(config.algorithm, self._start)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._own_pool = pool is None
        self._pool = pool or make_pool(config, self._founders, self._tasks)
        layers = self._founders.layers
        self._evaluator = Evaluator(
            self._pool,
            self._tasks,
            step_cost=length_penalty(config.algorithm) / max(1, layers),
            free_steps=layers,
        )
        if algorithm is None and wants_influence(config.algorithm):
            self._start = replace(self._start, influence=self._evaluator.influence(founders))
            chosen = make(config.algorithm, self._start)
        write_json(self.run_dir / CONFIG_FILE, config.model_dump(mode="json"))
        self._writer = LineageWriter(self.run_dir / LINEAGE_FOLDER)
        (self.run_dir / LINEAGE_FOLDER).mkdir()
        self._algorithm = type(chosen).__name__ if algorithm else config.algorithm.name
        self._writer.event("start", f"{self._algorithm}, seed {config.seed}", 0)
        for note in self.notes:
            self._writer.event("vocabulary", note, 0)
        for founder in founders:
            self._writer.individual(Candidate(founder, "founder"), 0)
        self._search = Search(chosen, self._evaluator, config.budget, self._writer, observe)
        self._generation = 0
        self._winner: Candidate | None = None
        self.startup_s = perf_counter() - self._began

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Generation]:
        for generation in self._search:
            self._generation = generation.number
            yield generation

    @property
    def lineage(self) -> Lineage:
        """All that is committed so far."""
        return Lineage(self.run_dir)

    @property
    def best(self) -> Candidate:
        """The winner after :meth:`finish`, before that the best on dev so far.

        Raises:
            UserError: nothing has been evaluated yet.
        """
        if self._winner is not None:
            return self._winner
        if self._search.best is None:
            raise UserError("nothing has been evaluated yet: iterate over the run first")
        return self._search.best.candidate

    def save(self, individual: str, out: Path | str) -> Path:
        """Export an individual (id, prefix of one, or ``best``) as an ordinary checkpoint."""
        from evo.export import export

        return export(
            self._recipe(individual), self._founders, Path(out), dtype=self.config.engine.dtype
        )

    def save_adapter(self, individual: str, out: Path | str, *, rank: int = 0) -> Path:
        """Export an individual as a PEFT LoRA adapter of the base: exact, or of ``rank`` at most.

        Raises:
            UserError: it is no low-rank change of the base, and no ``rank`` is given.
        """
        from evo.export_adapter import export_adapter

        remote = self.config.engine.trust_remote_code
        recipe = self._recipe(individual)
        report = export_adapter(
            recipe, self._founders, Path(out), rank=rank, trust_remote_code=remote
        )
        return report.path

    def finish(self) -> dict[str, Any]:
        """Choose the winner by select, score it and the baselines on test, write the summary.

        Raises:
            UserError: nothing has been evaluated yet.
        """
        ranked = self._search.ranked()
        if not ranked:
            raise UserError("nothing has been evaluated yet: iterate over the run first")
        started = perf_counter()
        finals = Finals(self._evaluator, self._writer, self._generation)
        settings = self.config.algorithm
        voters = settings.ensemble if isinstance(settings, GenomePlusSettings) else 0
        order = finals.order(ranked, max(self.config.finalists, voters))
        if not order:
            raise UserError(
                f"every finalist failed on the select split; the first says: {finals.last_error}"
            )
        winner = order[0]
        self._winner = winner.candidate
        entry = finals.entry("winner", "winner", winner.candidate, winner.fitness)
        ensemble = None
        if voters:
            ensemble = finals.ensemble("ensemble", [s.candidate for s in order[:voters]])
        baselines = score_baselines(
            self.config,
            self._start,
            known=self._search.scored,
            evaluations=self._search.evaluations,
            evaluator=self._evaluator,
            finals=finals,
            run_dir=self.run_dir,
        )
        stopped_by = self._search.reason or "caller"
        self._writer.event(
            "finish", f"{stopped_by}; winner {winner.candidate.id}", self._generation
        )
        self._writer.commit(FINAL)
        summary = {
            "winner": entry.as_json(),
            "ensemble": ensemble.as_json() if ensemble else None,
            "baselines": [b.as_json() for b in baselines],
            "algorithm": self._algorithm,
            "evaluations": self._search.evaluations,
            "generations": self._generation,
            "stopped_by": stopped_by,
            "seconds": perf_counter() - self._began,
            "seed": self.config.seed,
            "time": self._times(perf_counter() - started),
            "peak_memory_bytes": {
                "coordinator": peak_memory(),
                "hosts": {s.host: s.peak_bytes for s in self._pool.stats()},
            },
            "versions": versions(),
        }
        write_summary(self.run_dir, summary)
        return summary

    def close(self) -> None:
        """Let go of the hosts. What is committed stays."""
        if self._own_pool:
            self._pool.close()

    def _recipe(self, individual: str) -> Recipe:
        return self.best.recipe if individual == "best" else self.lineage.recipe(individual)

    def _times(self, final_s: float) -> dict[str, float]:
        """Where the search's time went. ``shares`` are of the hosts' time: hosts × seconds."""
        busy, capacity = self._search.busy, self._pool.hosts * self._search.seconds
        shares = {"build": busy.build_s, "model": busy.model_s, "score": busy.score_s}
        shares["other"] = max(0.0, capacity - busy.total_s)  # Ray, coordinator, waiting
        return {
            "startup_s": self.startup_s,
            "search_s": self._search.seconds,
            "final_s": final_s,
            "evaluations_per_second": self._search.evaluations / max(self._search.seconds, 1e-9),
        } | {f"{name}_share": seconds / max(capacity, 1e-9) for name, seconds in shares.items()}
