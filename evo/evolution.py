"""Evolution: a run from founders to winner, as the command line and your own loops use it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Self

from cluster.host.resources import peak_memory
from cluster.pool import Pool
from evo.algorithms import Algorithm, Candidate, Start
from evo.config.schema import PoolConfig, RunConfig
from evo.errors import EvoError
from evo.final.finalize import finalize, time_use
from evo.final.scorer import FinalScorer
from evo.lineage.read.lineage import Lineage
from evo.lineage.storage.commits import final_name
from evo.run.assembly import Hooks, Run, resume_run, start_run
from evo.run_dir import RunDir
from evo.run_dir.summary import PeakMemory, RunSummary
from evo.search.progress import Generation, Progress
from evo.trackers import Callback, TrackersConfig
from evo.versions import versions
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
        algorithm: your own algorithm; default: the one that ``config.algorithm`` names.
        pool: your own pool, which stays open; default: one as ``config.pool`` says.
        observe: called after each evaluation.
        callbacks: get each finished generation, beside the trackers of ``config.trackers``.

    Raises:
        EvoError: there is a run in ``run_dir`` already, another process works on it, the founders'
            vocabularies differ, or a tracker could not be started.
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
        started = perf_counter()
        hooks = Hooks(algorithm, pool, observe, tuple(callbacks))
        self._set(start_run(config, RunDir(Path(run_dir)), hooks), started)

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
        evaluations: int | None = None,
    ) -> Self:
        """Resume the run in ``run_dir``, which was stopped at any instant.

        The algorithm is replayed from the beginning with the recorded evaluations, so iterating gives all
        generations, also those of before.

        Args:
            run_dir: the folder of the run.
            pool_settings: instead of the config's ``pool``; no result depends on it.
            trackers: instead of the config's; each gets the generations that it does not have yet.
            reuse: other runs whose evaluations to take over, instead of the config's ``reuse``.
            accept_drift: resume although code or versions of packages have changed.
            repair: move damaged files, and all that was recorded after them, to ``RUN/damaged``, and
                evaluate again what they held. The lineage's events name the files.
            algorithm: the same as when the run started.
            pool, observe, callbacks: as for a new run; a callback gets no generation twice.
            evaluations: a new budget; see :meth:`extend`.

        Raises:
            EvoError: there is no run, it is damaged or finished, or another process works on it; or founders,
                tasks, config or code have changed since the run started.
        """
        started = perf_counter()
        folder = RunDir(Path(run_dir))
        taken = None if reuse is None else tuple(reuse)
        changed = {"pool": pool_settings, "trackers": trackers, "reuse": taken}
        config = folder.read_config(check_files=False).model_copy(
            update={key: value for key, value in changed.items() if value is not None}
        )
        hooks = Hooks(algorithm, pool, observe, tuple(callbacks))
        self = cls.__new__(cls)
        run = resume_run(
            config,
            folder,
            hooks,
            accept_drift=accept_drift,
            repair=repair,
            evaluations=evaluations,
        )
        self._set(run, started)
        return self

    @classmethod
    def extend(cls, run_dir: Path | str, *, evaluations: int, **options: Any) -> Self:
        """Continue a run that has finished or was stopped with a budget of ``evaluations`` in all.

        The individuals, scores and survivors are those of a run that had this budget from the start. An
        algorithm that depends on the budget, as ``sequence`` does, keeps the number that the run started
        with. With racing, the round in which the first budget ended is raced in two parts.

        The winner is chosen again, and test is scored again. The lineage's event ``extended`` and
        ``RunSummary.looks_at_test`` record it: if you extend a run because of its test score, the next one
        is optimistic.

        Args:
            run_dir: the folder of the run.
            evaluations: of distinct individuals on dev, those of before included.
            options: those of :meth:`resume`.

        Raises:
            EvoError: the run has as many evaluations already, or its search was stopped by another key of the
                budget; or as :meth:`resume`.
        """
        return cls.resume(run_dir, evaluations=evaluations, **options)

    def _set(self, run: Run, started: float) -> None:
        self._run, self._started = run, started
        self._generation = 0
        self._winner: Candidate | None = None
        self._closed = False
        self._startup_s = perf_counter() - started

    @property
    def config(self) -> RunConfig:
        """The run's config, with what autotuning found."""
        return self._run.config

    @property
    def run_dir(self) -> Path:
        return self._run.run_dir.path

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to the founders' vocabularies, one line each."""
        return self._run.manifest.notes

    @property
    def reused(self) -> tuple[str, ...]:
        """What was taken from other runs' evaluations, one line a run."""
        return self._run.reused

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Generation]:
        """Search on, generation by generation.

        Raises:
            EvoError: the run has finished, or it is closed.
        """
        self._check_open()
        if self._winner is not None:
            raise EvoError(
                f"{self.run_dir}: the run has finished, and its winner is scored on test. To continue it with a "
                "larger budget: Evolution.extend"
            )
        for generation in self._run.search:
            self._generation = generation.number
            self._run.tracking.generation(generation)
            yield generation

    @property
    def replays(self) -> bool:
        """Whether the evaluations so far come from the record of a run that is resumed."""
        return self._run.evaluator.replays

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
        if self._run.search.best is None:
            raise EvoError("nothing has been evaluated yet: iterate over the run first")
        return self._run.search.best.candidate

    def save(self, individual: str, out: Path | str) -> Path:
        """Export an individual (id, prefix of one, or ``best``) as an ordinary checkpoint.

        Raises:
            EvoError: there is no such individual.
        """
        from evo.export.checkpoint import export

        dtype = self.config.engine.dtype
        return export(self._recipe(individual), self._run.founders, Path(out), dtype=dtype)

    def save_adapter(self, individual: str, out: Path | str, *, rank: int = 0) -> Path:
        """Export an individual as a PEFT LoRA adapter of the base: exact, or of ``rank`` at most.

        Raises:
            EvoError: it is no low-rank change of the base, and no ``rank`` is given.
        """
        from evo.export.lora import export_adapter

        remote = self.config.engine.trust_remote_code
        recipe = self._recipe(individual)
        report = export_adapter(
            recipe, self._run.founders, Path(out), rank=rank, trust_remote_code=remote
        )
        return report.path

    def finish(self) -> RunSummary:
        """Choose the winner on select, score it and the baselines on test, and write the summary.

        Raises:
            EvoError: nothing has been evaluated yet, every finalist failed, or the run is closed.
        """
        self._check_open()
        run, final_started = self._run, perf_counter()
        run.search.leave()
        scorer = FinalScorer(run.evaluator, run.writer, self._generation, run.scored_before)
        outcome = finalize(run.config, run.start, run.search, scorer, run.run_dir)
        self._winner = outcome.winner
        for event in run.evaluator.events():  # of hosts, since the search
            run.writer.event(event.kind, event.detail, self._generation, news=True)
        stopped_by = run.search.reason or "caller"
        run.writer.event("finish", f"{stopped_by}; winner {self._winner.id}", self._generation)
        summary = RunSummary(
            winner=outcome.row,
            ensemble=outcome.ensemble,
            baselines=outcome.baselines,
            algorithm=run.algorithm,
            evaluations=run.search.evaluations,
            examples=run.search.examples,
            generations=self._generation,
            stopped_by=stopped_by,
            seconds=perf_counter() - self._started,
            seed=run.config.seed,
            time=time_use(
                run.search, run.pool.hosts, self._startup_s, perf_counter() - final_started
            ),
            peak_memory_bytes=PeakMemory(
                peak_memory(), {s.host: s.peak_bytes for s in run.pool.stats()}
            ),
            versions=versions(),
            looks_at_test=run.look,
        )
        run.run_dir.write_summary(summary)
        run.tracking.finish(summary)
        run.writer.commit(final_name(run.look))  # last: a run without a summary has not finished
        return summary

    def close(self) -> None:
        """Close hosts, files and trackers, and unlock the folder. All evaluations are recorded."""
        self._closed = True
        self._run.resources.close()

    def _check_open(self) -> None:
        if self._closed:
            raise EvoError(
                f"{self.run_dir}: this run is closed, and another process may work on it. To continue it: "
                "Evolution.resume"
            )

    def _recipe(self, individual: str) -> Recipe:
        return self.best.recipe if individual == "best" else self.lineage.recipe(individual)
