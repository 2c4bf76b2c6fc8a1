"""Evolution: a run from founders to winner, as the command line and your own loops use it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, Self

from cluster.host.resources import peak_memory
from cluster.pool import IN_FLIGHT, Pool
from evo.algorithms import Algorithm, Candidate, Start, make, traits
from evo.by_hand import start_of
from evo.config.schema import PoolConfig, RunConfig
from evo.errors import EvoError
from evo.final.finalize import end, times
from evo.final.finals import Finals
from evo.lineage.files import RunLock
from evo.lineage.read.lineage import LINEAGE_FOLDER, Lineage
from evo.lineage.storage.commits import FINAL
from evo.lineage.storage.journal import JOURNAL_FILE, Journal
from evo.lineage.storage.writer import LineageWriter
from evo.lineage.summary import SUMMARY_FILE, versions, write_json, write_summary
from evo.run.autotune import autotuned
from evo.run.evaluation_cache import ReusingPool, find_reusable
from evo.run.manifest import START_FILE, check_drift, made_with, read_start, write_start
from evo.run.recovery import (
    CONFIG_FILE,
    Past,
    holds_run,
    is_finished,
    read_config,
    read_past,
    set_damage_aside,
)
from evo.run.setup import (
    check_adapters,
    check_paths,
    load_tasks,
    make_pool,
    open_founders,
    reopen_founders,
)
from evo.search.evaluator import Evaluator
from evo.search.loop import Generation, Progress, Search
from evo.search.racing import Race
from evo.search.rungs import rungs_of
from evo.trackers import Callback, TrackedRun, TrackersConfig, make_trackers
from evo.trackers.tracking import Tracking
from operators.recipe import Recipe


class Evolution:
    """One evolution of a population of models.

    Examples:
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
        callbacks: told of each finished generation, beside the trackers of ``config.trackers``.

    Raises:
        EvoError: ``run_dir`` holds a run already, another process is at work on it, or the founders'
            vocabularies differ; or a tracker could not be started.
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
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self._prepare(config, Path(run_dir), algorithm, pool, callbacks)
        try:
            if holds_run(self.run_dir):
                raise EvoError(
                    f"{self.run_dir}: holds a run already; `evo resume {self.run_dir}` goes on with it. "
                    "For a new one choose another folder"
                )
            self._tasks = load_tasks(config.tasks)
            self._founders, self.notes = open_founders(config, self.run_dir)
            self._settle()
            made = made_with(self.config, self._founders, self._tasks)
            self._open({**made, "notes": list(self.notes)}, Past(), observe)
        except BaseException:
            self._give_up(begun=holds_run(self.run_dir))
            raise

    @classmethod
    def resume(
        cls,
        run_dir: Path | str,
        *,
        pool_settings: PoolConfig | None = None,
        trackers: TrackersConfig | None = None,
        reuse: Sequence[Path] | None = None,
        accept_drift: bool = False,
        repair: bool = False,
        algorithm: Callable[[Start], Algorithm] | None = None,
        pool: Pool | None = None,
        observe: Callable[[Progress], None] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Self:
        """Go on with the run in ``run_dir`` as if it had never stopped.

        The same algorithm is asked from the beginning, and answered from the lineage as long as that
        lasts; so iterating gives all generations, also those of earlier sittings.

        Args:
            run_dir: the folder of a run that was stopped, by whatever.
            pool_settings: another ``pool`` than the config's; what it is changes no result.
            trackers: others than the config's; each is told what it has not heard of yet.
            reuse: other runs than the config's, of which to take what they evaluated.
            accept_drift: go on though the code or the versions of libraries are others.
            repair: set damaged files aside (``RUN/damaged``), with all that was recorded after them,
                and evaluate again what they held. The lineage's events say what was moved.
            algorithm: as it was given when the run began.
            pool: as above.
            observe: as above.
            callbacks: as above; a generation that one has been told of is not told again.

        Raises:
            EvoError: no run there, or a damaged one; it is at work or finished; or founders, tasks,
                config or code are others than at the start: the message names what.
        """
        run_dir = Path(run_dir)
        config = read_config(run_dir, check_files=False)
        if pool_settings is not None:
            config = config.model_copy(update={"pool": pool_settings})
        if trackers is not None:
            config = config.model_copy(update={"trackers": trackers})
        if reuse is not None:
            config = config.model_copy(update={"reuse": tuple(reuse)})
        self = cls.__new__(cls)
        self._prepare(config, run_dir, algorithm, pool, callbacks)
        try:
            moved = set_damage_aside(run_dir) if repair else []
            past = read_past(run_dir)
            if is_finished(past):
                raise EvoError(
                    f"{run_dir}: has finished; what it found is in its {SUMMARY_FILE} and its lineage"
                )
            self._tasks = load_tasks(config.tasks)
            self._founders = reopen_founders(config, run_dir, set(config.founders))
            start = read_start(run_dir)
            self.notes = tuple(start["notes"])
            now = made_with(config, self._founders, self._tasks)
            drift = check_drift(run_dir, now, accept_code=accept_drift)
            self._open(start, past, observe)
            news = [("repair", m) for m in moved] + [("drift", d) for d in drift]
            for kind, detail in (*news, ("resume", past.describe())):
                self._writer.event(kind, detail, len(past.committed), news=True)
        except BaseException:
            self._give_up(begun=True)
            raise
        return self

    def _prepare(
        self,
        config: RunConfig,
        run_dir: Path,
        algorithm: Callable[[Start], Algorithm] | None,
        pool: Pool | None,
        callbacks: Sequence[Callback],
    ) -> None:
        self._began = perf_counter()
        self.config, self.run_dir = config, run_dir
        self._algorithm, self._own_pool, self._pool = algorithm, pool is None, pool
        self._generation = 0
        self._winner: Candidate | None = None
        self._journal: Journal | None = None
        if algorithm is None:
            check_paths(config)
            check_adapters(config)
        named = make_trackers(config.trackers, on_ray=config.pool.kind == "ray")
        self._tracking = Tracking(run_dir, named, callbacks, self._note_tracker)
        self._lock = RunLock(run_dir)

    def _settle(self) -> None:
        self.config = autotuned(self.config, self._founders, self._tasks)

    def _open(
        self, made: Mapping[str, Any], past: Past, observe: Callable[[Progress], None] | None
    ) -> None:
        """Everything from the algorithm to the search; the same for a new run and an old one."""
        config, folder = self.config, self.run_dir / LINEAGE_FOLDER
        founders = tuple(f.founder for f in self._founders.founders)
        layers = self._founders.layers
        self._start = start_of(
            self._founders,
            seed=config.seed,
            evaluations=config.budget.evaluations,
            influence=made.get("influence"),
        )
        # Made once more below where it wants to know the models: its mistakes cost no waiting.
        chosen = self._make()
        made = {"algorithm": type(chosen).__qualname__, **made}
        if made["algorithm"] != type(chosen).__qualname__:
            raise EvoError(
                f"{self.run_dir}: the run's algorithm is {made['algorithm']}, and this is "
                f"{type(chosen).__qualname__}. Where it is one of your own, go on from your own code: "
                "Evolution.resume(run_dir, algorithm=...)"
            )
        reused = find_reusable(config.reuse, made, self.run_dir)
        self.reused = reused.notes
        if self._pool is None:
            self._pool = make_pool(config, self._founders, self._tasks, self.run_dir.resolve().name)
        tasks = [t.task for t in self._tasks]
        rungs = rungs_of(config.racing, tasks)
        if reused.known:
            self._pool = ReusingPool(self._pool, reused.known, tasks)
        self._evaluator = Evaluator(
            self._pool,
            self._tasks,
            step_cost=traits(config.algorithm).length_penalty / max(1, layers),
            free_steps=layers,
            past=past.records,
            rungs=rungs,
        )
        self._name = type(chosen).__name__ if self._algorithm else config.algorithm.name
        told = config.model_dump(mode="json", exclude={"trackers"})
        self._tracking.start(TrackedRun(self.run_dir, told, self._name))
        if not holds_run(self.run_dir):
            if self._algorithm is None and traits(config.algorithm).influence:
                made = {**made, "influence": self._evaluator.influence(founders)}
            made = {**made, "in_flight": self._in_flight_now()}
            write_start(self.run_dir, made)
            write_json(self.run_dir / CONFIG_FILE, config.model_dump(mode="json"))
        if influence := made.get("influence"):
            influence = {name: tuple(values) for name, values in influence.items()}
            self._start = replace(self._start, influence=influence)
            chosen = self._make()
        self._journal = Journal(folder / JOURNAL_FILE, past.journal.size)
        self._evaluator.remember = self._journal.append
        self._writer = LineageWriter(folder, journal=self._journal, committed=past.committed)
        self._writer.event("start", f"{self._name}, seed {config.seed}", 0)
        for note in self.notes:
            self._writer.event("vocabulary", note, 0)
        for note in self.reused:
            self._writer.event("reuse", note, len(past.committed), news=True)
        for founder in founders:
            self._writer.individual(Candidate(founder, "founder"), 0)
        race = None
        if rungs is not None and config.racing is not None:
            race = Race(self._evaluator, rungs, config.racing.confidence)
        self._search = Search(
            chosen, self._evaluator, config.budget, self._writer, observe, made["in_flight"], race
        )
        self.startup_s = perf_counter() - self._began

    def _make(self) -> Algorithm:
        return (
            self._algorithm(self._start)
            if self._algorithm
            else make(self.config.algorithm, self._start)
        )

    @property
    def _open_pool(self) -> Pool:
        if self._pool is None:
            raise EvoError("the run was closed")
        return self._pool

    def _in_flight_now(self) -> int | None:
        """How many evaluations the search keeps asked: fixed when a run begins, or a replay would differ."""
        loop = self.config.loop
        if loop.kind == "generational":
            return None
        return loop.in_flight or IN_FLIGHT * self._open_pool.hosts

    def _give_up(self, *, begun: bool) -> None:
        self.close()
        if not begun:
            self._tracking.discard()
            (self.run_dir / START_FILE).unlink(missing_ok=True)
            self._lock.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Generation]:
        for generation in self._search:
            self._generation = generation.number
            self._tracking.generation(generation)
            yield generation

    @property
    def replays(self) -> bool:
        """Whether what an earlier sitting recorded is still being gone through."""
        return self._evaluator.recalls

    @property
    def lineage(self) -> Lineage:
        """All that is committed so far."""
        return Lineage(self.run_dir)

    @property
    def best(self) -> Candidate:
        """The winner after :meth:`finish`, before that the best on dev so far.

        Raises:
            EvoError: nothing has been evaluated yet.
        """
        if self._winner is not None:
            return self._winner
        if self._search.best is None:
            raise EvoError("nothing has been evaluated yet: iterate over the run first")
        return self._search.best.candidate

    def save(self, individual: str, out: Path | str) -> Path:
        """Export an individual (id, prefix of one, or ``best``) as an ordinary checkpoint."""
        from evo.export.checkpoint import export

        return export(
            self._recipe(individual), self._founders, Path(out), dtype=self.config.engine.dtype
        )

    def save_adapter(self, individual: str, out: Path | str, *, rank: int = 0) -> Path:
        """Export an individual as a PEFT LoRA adapter of the base: exact, or of ``rank`` at most.

        Raises:
            EvoError: it is no low-rank change of the base, and no ``rank`` is given.
        """
        from evo.export.lora import export_adapter

        remote = self.config.engine.trust_remote_code
        recipe = self._recipe(individual)
        report = export_adapter(
            recipe, self._founders, Path(out), rank=rank, trust_remote_code=remote
        )
        return report.path

    def finish(self) -> dict[str, Any]:
        """Choose the winner by select, score it and the baselines on test, write the summary.

        Raises:
            EvoError: nothing has been evaluated yet.
        """
        started = perf_counter()
        self._search.leave()
        finals = Finals(self._evaluator, self._writer, self._generation)
        self._winner, entries = end(
            self.config, self._start, self._search, self._evaluator, finals, self.run_dir
        )
        for event in self._evaluator.events():  # what happened to hosts since the search
            self._writer.event(event.kind, event.detail, self._generation, news=True)
        stopped_by = self._search.reason or "caller"
        self._writer.event("finish", f"{stopped_by}; winner {self._winner.id}", self._generation)
        summary = {
            **entries,
            "algorithm": self._name,
            "evaluations": self._search.evaluations,
            "examples": self._search.examples,
            "generations": self._generation,
            "stopped_by": stopped_by,
            "seconds": perf_counter() - self._began,
            "seed": self.config.seed,
            "time": times(
                self._search, self._open_pool.hosts, self.startup_s, perf_counter() - started
            ),
            "peak_memory_bytes": {
                "coordinator": peak_memory(),
                "hosts": {s.host: s.peak_bytes for s in self._open_pool.stats()},
            },
            "versions": versions(),
        }
        write_summary(self.run_dir, summary)
        self._tracking.finish(summary)
        self._writer.commit(FINAL)  # last: a run whose summary is missing has not finished
        return summary

    def close(self) -> None:
        """Let go of the hosts and of the folder. All that was evaluated is recorded."""
        if self._own_pool and self._pool is not None:
            self._pool.close()
        elif hasattr(self, "_evaluator"):
            self._evaluator.cancel()
        if self._journal is not None:
            self._journal.close()
        self._tracking.close()
        self._lock.release()

    def _note_tracker(self, detail: str, generation: int) -> None:
        self._writer.event("tracker", detail, generation, news=True)

    def _recipe(self, individual: str) -> Recipe:
        return self.best.recipe if individual == "best" else self.lineage.recipe(individual)
