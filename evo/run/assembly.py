"""Assembly: from a config and a run directory to the parts of a run, new or resumed."""

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from cluster.founders.checkpoints import FounderSet
from cluster.pool import IN_FLIGHT, Pool
from evo.algorithms import Algorithm, Candidate, Start, make, traits
from evo.by_hand import start_of
from evo.config.schema import RunConfig
from evo.errors import EvoError
from evo.lineage.storage.commits import looks
from evo.lineage.storage.journal import Journal
from evo.lineage.storage.writer import LineageWriter
from evo.run.autotune import autotuned
from evo.run.changes import check_changes
from evo.run.evaluation_cache import ReusingPool, find_reusable
from evo.run.extension import extension_of, record_extension
from evo.run.fingerprint import fingerprint
from evo.run.pool import pool_kind, start_pool
from evo.run.recovery import Past, read_past, set_damage_aside
from evo.run.setup import (
    check_adapters,
    check_engine,
    check_paths,
    load_tasks,
    open_founders,
    reopen_founders,
)
from evo.run_dir import RunDir
from evo.run_dir.lock import RunLock
from evo.run_dir.manifest import RunManifest
from evo.search.evaluator import Evaluator
from evo.search.loop import Search
from evo.search.objective import Objective, WeighedTask
from evo.search.progress import Progress
from evo.search.rungs import rungs_of
from evo.trackers import Callback, TrackedRun, make_trackers
from evo.trackers.tracking import Tracking


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a caller adds to a run: an algorithm, a pool, an observer of each evaluation, trackers."""

    algorithm: Callable[[Start], Algorithm] | None = None
    pool: Pool | None = None
    observe: Callable[[Progress], None] | None = None
    callbacks: tuple[Callback, ...] = ()


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run is made of: its config, and the founders and tasks that it names."""

    config: RunConfig
    founders: FounderSet
    tasks: tuple[WeighedTask, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """The parts of a run that is ready to iterate.

    Attributes:
        look: how many times test will have been scored at the end of the run, from 1.
        scored_before: individual and split of what earlier ends of the run scored.
        resources: closes all that is open.
    """

    config: RunConfig
    run_dir: RunDir
    manifest: RunManifest
    founders: FounderSet
    start: Start
    algorithm: str
    pool: Pool
    evaluator: Evaluator
    writer: LineageWriter
    search: Search
    look: int
    scored_before: Collection[tuple[str, str]]
    tracking: Tracking
    reused: tuple[str, ...]
    resources: ExitStack


def start_run(config: RunConfig, run_dir: RunDir, hooks: Hooks) -> Run:
    """Assemble a new run. A failure leaves the directory as it was.

    Raises:
        EvoError: there is a run already, another process works on it, or founders don't fit.
        CheckpointError, WeightsMismatchError, TaskError: founders or tasks can't be used.
    """
    with _locked(config, run_dir, hooks) as stack:
        if run_dir.has_run:
            raise EvoError(
                f"{run_dir.path}: there is a run already. Resume it with `evo resume {run_dir.path}`, or "
                "choose another folder"
            )
        tasks = load_tasks(config.tasks)
        founders, notes = open_founders(config, run_dir)
        config = autotuned(config, founders, tasks)
        manifest = fingerprint(config, founders, tasks, notes)
        return _assemble(Inputs(config, founders, tasks), run_dir, manifest, Past(), hooks, stack)


def resume_run(
    config: RunConfig,
    run_dir: RunDir,
    hooks: Hooks,
    *,
    accept_drift: bool = False,
    repair: bool = False,
    evaluations: int | None = None,
) -> Run:
    """Assemble a run from what is recorded of it; with ``evaluations``, extend it to this budget.

    Raises:
        EvoError: the run is damaged or finished, or another process works on it; founders, tasks, config
            or code have changed; or it can't be extended to this budget.
    """
    with _locked(config, run_dir, hooks) as stack:
        moved = set_damage_aside(run_dir) if repair else []
        past = read_past(run_dir)
        extension = None if evaluations is None else extension_of(run_dir, past, evaluations)
        if past.is_finished and extension is None:
            raise EvoError(
                f"{run_dir.path}: the run has finished; see {run_dir.summary_path.name}. To continue it with "
                f"a larger budget: evo resume {run_dir.path} --set budget.evaluations=NUMBER"
            )
        tasks = load_tasks(config.tasks)
        founders = reopen_founders(config, run_dir, set(config.founders))
        manifest = run_dir.read_manifest()
        now = fingerprint(config, founders, tasks)
        drift = check_changes(run_dir.path, manifest, now, accept_code=accept_drift)
        events = [("repair", m) for m in moved] + [("drift", d) for d in drift]
        if extension is not None:
            record_extension(run_dir, past, extension)
            manifest = extension.manifest
            budget = config.budget.model_copy(update={"evaluations": extension.evaluations})
            config = config.model_copy(update={"budget": budget})
            if not past.is_finished:
                events.append(("extended", extension.detail))
            past = read_past(run_dir)
        run = _assemble(Inputs(config, founders, tasks), run_dir, manifest, past, hooks, stack)
        for kind, detail in (*events, ("resume", past.describe())):
            run.writer.event(kind, detail, past.generations, news=True)
        return run


def _locked(config: RunConfig, run_dir: RunDir, hooks: Hooks) -> ExitStack:
    """Check what needs no file, and lock the directory. A run that does not start leaves no file."""
    if hooks.algorithm is None:
        check_engine(config)
        check_paths(config)
        check_adapters(config)
    lock = run_dir.lock()
    stack = ExitStack()
    stack.callback(_release, run_dir, lock)
    return stack


def _release(run_dir: RunDir, lock: RunLock) -> None:
    if run_dir.has_run:
        lock.release()
        return
    for path in (run_dir.manifest_path, run_dir.trackers_path):
        path.unlink(missing_ok=True)
    lock.discard()


def _assemble(
    inputs: Inputs,
    run_dir: RunDir,
    manifest: RunManifest,
    past: Past,
    hooks: Hooks,
    stack: ExitStack,
) -> Run:
    config = inputs.config
    is_new = not run_dir.has_run
    trackers = make_trackers(config.trackers, on_ray=pool_kind(config) == "ray")
    start = _start_of(inputs, manifest)
    # Made before any host starts, so that wrong settings are found at once.
    algorithm = _make(config, start, hooks)
    kind = type(algorithm).__qualname__
    if not is_new and manifest.search.algorithm != kind:
        raise EvoError(
            f"{run_dir.path}: the run's algorithm is {manifest.search.algorithm}, not {kind}. If it is your "
            "own, resume from Python: Evolution.resume(run_dir, algorithm=...)"
        )
    reused = find_reusable(config.reuse, manifest.scores, run_dir)
    pool = hooks.pool
    if pool is None:
        pool = start_pool(config, inputs.founders, inputs.tasks, run_dir.path.resolve().name)
        stack.callback(pool.close)
    tasks = [t.task for t in inputs.tasks]
    if reused.known:
        pool = ReusingPool(pool, reused.known, tasks)
    # The journal of a run whose earlier budget was spent may have evaluations of its end.
    stops, recorded = manifest.search.stops, past.journal.records
    evaluator = Evaluator(
        pool,
        Objective(
            inputs.tasks,
            step_cost=traits(config.algorithm).length_penalty / max(1, start.layers),
            free_steps=start.layers,
        ),
        past=past.search if stops else (*past.search, *recorded),
        known=(*past.final, *past.baselines, *(recorded if stops else ())),
        rungs=rungs_of(config.racing, tasks),
    )
    if hooks.pool is not None:  # it stays open, without jobs of this run
        stack.callback(evaluator.cancel)
    name = type(algorithm).__name__ if hooks.algorithm else config.algorithm.name
    writers: list[LineageWriter] = []  # made below; trackers report only once there is one

    def note(detail: str, generation: int) -> None:
        writers[0].event("tracker", detail, generation, news=True)

    tracking = Tracking(run_dir, trackers, hooks.callbacks, note)
    stack.callback(tracking.close)
    public = config.model_dump(mode="json", exclude={"trackers"})
    tracking.start(TrackedRun(run_dir.path, public, name))
    if is_new:
        influence: Mapping[str, tuple[float, ...]] = {}
        if hooks.algorithm is None and traits(config.algorithm).influence:
            influence = evaluator.influence(start.founders)
        search_inputs = replace(
            manifest.search,
            algorithm=kind,
            in_flight=_in_flight(config, pool),
            influence=influence,
        )
        manifest = replace(manifest, search=search_inputs)
        run_dir.write_manifest(manifest)
        run_dir.write_config(config)
    if manifest.search.influence:
        start = _start_of(inputs, manifest)
        algorithm = _make(config, start, hooks)
    journal = Journal(run_dir.journal, past.journal.size)
    stack.callback(journal.close)
    evaluator.record = journal.append
    writer = LineageWriter(
        run_dir.lineage, journal=journal, committed=past.committed, known=past.individuals
    )
    writers.append(writer)
    writer.event("start", f"{name}, seed {config.seed}", 0)
    for detail in manifest.notes:
        writer.event("vocabulary", detail, 0)
    for detail in reused.notes:
        writer.event("reuse", detail, past.generations, news=True)
    for founder in start.founders:
        writer.individual(Candidate(founder, "founder"), 0)
    in_flight = manifest.search.in_flight
    search = Search(
        algorithm, evaluator, config.budget, writer, hooks.observe, in_flight, stops=stops
    )
    return Run(
        config,
        run_dir,
        manifest,
        inputs.founders,
        start,
        name,
        pool,
        evaluator,
        writer,
        search,
        looks(past.committed),
        {(r.individual, r.key[1]) for r in past.final},
        tracking,
        reused.notes,
        stack.pop_all(),
    )


def _start_of(inputs: Inputs, manifest: RunManifest) -> Start:
    return start_of(
        inputs.founders,
        seed=inputs.config.seed,
        evaluations=manifest.search.evaluations,
        influence=manifest.search.influence,
    )


def _make(config: RunConfig, start: Start, hooks: Hooks) -> Algorithm:
    return hooks.algorithm(start) if hooks.algorithm else make(config.algorithm, start)


def _in_flight(config: RunConfig, pool: Pool) -> int | None:
    """How many evaluations a steady-state search keeps in flight; fixed at the start, for exact replay."""
    if config.loop.kind == "generational":
        return None
    return config.loop.in_flight or IN_FLIGHT * pool.hosts
