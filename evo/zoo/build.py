"""Build the zoo: train the base, then the founders in parallel, and write tasks and figures.

A built zoo is a folder of ordinary Hugging Face checkpoints and JSON Lines:
``base/``, one folder a founder, ``tasks/<task>.<split>.jsonl``, and ``zoo.json``, written last.
A folder with ``zoo.json`` is complete. One with the marker ``.zoo-building`` instead is half
built, by a build that was killed, and is built again from the start. Any other folder with files
in it is refused.

Importing this module loads no torch; the worker processes do.
"""

import dataclasses
import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any, Final

from evo.errors import EvoError
from evo.zoo import worker, world
from evo.zoo.plan import Course, ZooPlan, zoo_plan
from evo.zoo.tasks import DEFAULT_SIZES, parse_mix, task_rows, write_task, write_whole

Progress = Callable[[str, float], None]
Figures = Mapping[str, Mapping[str, float]]

FORMAT: Final = 1
"""Increased when the same seed gives different files than before."""

TASKS: Final[Mapping[str, str]] = {
    "alien": "swap:1,pmax:1",
    "trio": "rev:0,swap:0,pmax:0",
    **{skill: f"{skill}:0" for skill in world.SKILLS},
}
"""The tasks of each zoo: name to mix, as `parse_mix` reads it."""

_MANIFEST: Final = "zoo.json"
_MARKER: Final = ".zoo-building"
_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class ZooReport:
    """A built zoo.

    Attributes:
        founders: names of the founders' folders; the base's is ``base``.
        figures: exact match (0 to 1) by model, then by task and split, as in ``alien.test``.
        reused: the zoo existed already; nothing was trained.
    """

    directory: Path
    seed: int
    founders: tuple[str, ...]
    figures: Figures
    reused: bool


def build(
    directory: Path,
    *,
    plan: ZooPlan | None = None,
    seed: int = 0,
    workers: int = 2,
    progress: Progress | None = None,
) -> ZooReport:
    """Build the zoo in ``directory``, unless it is there already. Two minutes on two cores.

    The same seed gives the same bytes on the same machine, whatever ``workers`` is.

    Args:
        plan: how each model is trained; the demo's by default.
        workers: founders trained at a time, each in a process with one thread.
        progress: called with the current phase and the share done, 0 to 1.

    Raises:
        EvoError: ``directory`` is a file, holds other files, or holds another zoo.
    """
    if workers < 1:
        raise EvoError(f"workers is {workers}; building the zoo needs at least one worker")
    plan = plan or zoo_plan()
    if (directory / _MANIFEST).is_file():
        return _reuse(directory, plan, seed)
    _claim(directory, plan)
    for name, mix in TASKS.items():
        write_task(directory / "tasks", parse_mix(mix), name=name, seed=seed)
    figures = _train_all(directory, plan, seed, workers, progress or _silent)
    manifest = {**_identity(plan, seed), "tasks": dict(TASKS), "figures": figures}
    write_whole(directory / _MANIFEST, json.dumps(manifest, indent=2) + "\n")
    (directory / _MARKER).unlink()
    return ZooReport(directory, seed, _names(plan)[1:], figures, reused=False)


def _silent(label: str, fraction: float) -> None:
    pass


def _names(plan: ZooPlan) -> tuple[str, ...]:
    return tuple(course.name for course in plan.courses)


def _identity(plan: ZooPlan, seed: int) -> dict[str, Any]:
    """What decides a zoo's bytes, apart from the machine and the versions of packages."""
    digest = hashlib.sha256(repr(dataclasses.astuple(plan)).encode()).hexdigest()
    return {"format": FORMAT, "seed": seed, "plan": digest}


def _reuse(directory: Path, plan: ZooPlan, seed: int) -> ZooReport:
    """The report of an existing zoo.

    Raises:
        EvoError: ``zoo.json`` is damaged or of another zoo, or a checkpoint is missing.
    """
    path = directory / _MANIFEST
    advice = "Choose another folder, or remove this one to build it again."
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EvoError(f"{path} is not JSON ({error}). {advice}") from error
    wanted = _identity(plan, seed)
    for key, value in wanted.items():
        found = manifest.get(key) if isinstance(manifest, dict) else None
        if found != value:
            raise EvoError(
                f"{directory} holds another zoo: its {key} is {found!r}, wanted {value!r}. {advice}"
            )
    for name in _names(plan):
        if not (directory / name / "model.safetensors").is_file():
            raise EvoError(f"{directory}: {_MANIFEST} exists but {name}/ does not. {advice}")
    return ZooReport(directory, seed, _names(plan)[1:], manifest["figures"], reused=True)


def _claim(directory: Path, plan: ZooPlan) -> None:
    """Mark ``directory`` as a zoo being built, and remove what a killed build left.

    Raises:
        EvoError: it is a file, or holds files that are not of a half-built zoo.
    """
    if directory.exists() and not directory.is_dir():
        raise EvoError(f"{directory} is a file; the zoo needs a folder of its own")
    marker = directory / _MARKER
    if directory.is_dir() and any(directory.iterdir()) and not marker.is_file():
        some = ", ".join(sorted(path.name for path in directory.iterdir())[:3])
        raise EvoError(
            f"{directory} is not empty and holds no zoo (it has {some}); "
            "choose a new or an empty folder"
        )
    directory.mkdir(parents=True, exist_ok=True)
    marker.touch()
    for name in (*_names(plan), "tasks"):
        shutil.rmtree(directory / name, ignore_errors=True)
        shutil.rmtree(directory / f".{name}.partial", ignore_errors=True)


def _figures_rows(plan: ZooPlan, seed: int) -> dict[str, list[tuple[str, str]]]:
    """The rows that each figure is scored on, by the stem of the file that holds them.

    Mixed tasks are scored on all test rows, since results are compared on them; for single skills a few
    hundred dev rows are enough.
    """
    rows = {}
    for name, text in TASKS.items():
        mix = parse_mix(text)
        split = "test" if len(mix) > 1 else "dev"
        rows[f"{name}.{split}"] = [
            (row["prompt"], row["answer"])
            for row in task_rows(mix, split, DEFAULT_SIZES[split], name=name, seed=seed)
        ][: plan.figure_rows]
    return rows


def _train_all(
    directory: Path, plan: ZooPlan, seed: int, workers: int, progress: Progress
) -> dict[str, dict[str, float]]:
    """Train the base, then the founders; figures by model in the plan's order."""
    scored = _figures_rows(plan, seed)

    def job(course: Course, parent: Path | None) -> worker.TrainingJob:
        return worker.TrainingJob(
            course, plan.base.lessons, parent, directory / course.name, scored, seed
        )

    context = multiprocessing.get_context("spawn")
    link = worker.Link(context.SimpleQueue(), context.Event())
    bar = _Bar(link.trained, sum(c.steps * c.batch for c in plan.courses), progress)
    pool = ProcessPoolExecutor(
        min(workers, len(plan.founders)),
        mp_context=context,
        initializer=worker.start,
        initargs=(link,),
    )
    try:
        base = pool.submit(worker.run, job(plan.base, None))
        bar.follow("training the base model", [base])
        founders = [
            pool.submit(worker.run, job(course, directory / plan.base.name))
            for course in plan.founders
        ]
        bar.follow("training the founders", founders)
    finally:
        link.stop.set()
        pool.shutdown(cancel_futures=True)
    progress("done", 1.0)
    return {
        name: future.result() for name, future in zip(_names(plan), (base, *founders), strict=True)
    }


class _Bar:
    """Calls ``progress`` with the share of examples that the workers have reported.

    An example takes about the same time in every course, so this is also the share of time.
    """

    def __init__(self, trained: SimpleQueue[int], total: int, progress: Progress) -> None:
        self._trained = trained
        self._total = total
        self._progress = progress
        self._done = 0

    def follow(self, label: str, futures: Sequence[Future[dict[str, float]]]) -> None:
        """Report until all futures are done; raise the first failure at once."""
        pending = set(futures)
        while pending:
            finished, pending = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            while not self._trained.empty():
                self._done += self._trained.get()
            self._progress(label, min(1.0, self._done / self._total))
            for future in finished:
                future.result()
