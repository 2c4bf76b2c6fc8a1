"""Verify: individuals of a run built and evaluated again, and compared with what the lineage says."""

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow.compute as pc
import torch

from cluster.founders.checkpoints import FounderSet
from cluster.jobs import Job, JobResult, Query
from cluster.pool import run_all
from evo.config.schema import PoolConfig, RunConfig
from evo.errors import EvoError
from evo.lineage.read.lineage import Lineage
from evo.lineage.read.opening import open_lineage
from evo.lineage.storage.records import RACED
from evo.reproduce.rebuild import founders_of
from evo.run.changes import changes
from evo.run.fingerprint import fingerprint
from evo.run.pool import start_pool
from evo.run.setup import load_tasks
from evo.run_dir import RunDir
from evo.search.objective import WeighedTask
from evo.search.rungs import restricted, rungs_of
from fitness.racing import example_order
from fitness.splits import DEV, Split
from operators.recipe import describe

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Checked:
    """One individual: what the lineage says of it, and how that differs from what is so now.

    Attributes:
        description: the recipe, short.
        scores: as recorded, by task; None where it failed.
        examples: how many values were compared.
        digest: of the weights, as recorded; None where none was.
        differences: in words; empty if there are none.
        note: what could not be compared.
    """

    id: str
    description: str
    scores: Mapping[str, float | None]
    examples: int
    digest: str | None
    differences: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """What came out; ``notes`` say why things may differ here that were right when recorded."""

    run_dir: Path
    split: Split
    checked: tuple[Checked, ...]
    notes: tuple[str, ...]

    @property
    def same(self) -> bool:
        return not any(c.differences for c in self.checked)

    @property
    def without_digest(self) -> int:
        """How many have no digest of their weights on record."""
        return sum(c.digest is None for c in self.checked)


def verify(
    run_dir: Path | str,
    individuals: Sequence[str] = (),
    *,
    sample: int | None = 20,
    seed: int = 0,
    split: Split = DEV,
    advance: Callable[[str, float], None] | None = None,
) -> Verification:
    """Build individuals of a run again, put the run's own requests to them in this process, and compare
    the weights' digest, the scores and every example's value with the lineage, to the last bit.

    Args:
        individuals: ids, prefixes of them, or ``best``; without any, a random sample of all that were
            evaluated on ``split``, the dead and the failed among them.
        sample: how many, at most; None for all.
        seed: of the sample.
        advance: called with a text and a fraction as it goes on.

    Raises:
        EvoError: no such run or individual, one that was not evaluated on ``split``, or founders or
            tasks that are not those that the run began with.
        CheckpointError, TaskError: founders or tasks can't be read.
    """
    lineage = open_lineage(run_dir)
    recorded = _by_individual(lineage, "evaluations", split)
    if not recorded:
        raise EvoError(f"{run_dir}: nobody has been evaluated on {split}")
    if individuals:
        chosen = list(dict.fromkeys(lineage.find(name) for name in individuals))
        if away := next((name for name in chosen if name not in recorded), None):
            raise EvoError(f"{run_dir}: individual {away[:12]} was not evaluated on {split}")
    else:
        everybody = list(recorded)
        count = len(everybody) if sample is None else min(sample, len(everybody))
        chosen = random.Random(seed).sample(everybody, count)
    items = _by_individual(lineage, "items", split, chosen)
    recipes = [lineage.recipe(name) for name in chosen]
    config = RunDir(lineage.run_dir).read_config(check_files=False)
    tasks = load_tasks(config.tasks)
    founders = founders_of(recipes, config, lineage.run_dir)
    notes = _changes(lineage, config, founders, tasks)
    here, elsewhere = _here(config)
    pool = start_pool(here, founders, tasks)
    rungs = rungs_of(config.racing, [t.task for t in tasks]) if split == DEV else None
    # The same batches as then, or the last bits may differ.
    queries = rungs.queries() if rungs else tuple(Query(t.task.name, split) for t in tasks)
    checked = []
    try:
        for result in run_all(pool, [Job(r, queries) for r in recipes]):
            name = result.job.recipe.id
            now = rungs.joined([result]) if rungs else result
            checked.append(_checked(recorded[name], items.get(name, []), now))
            if advance is not None:
                advance(f"verify {name[:12]}", len(checked) / len(chosen))
    finally:
        pool.close()
    return Verification(lineage.run_dir, split, tuple(checked), (*elsewhere, *notes))


def _by_individual(
    lineage: Lineage, table: str, split: str, individuals: Collection[str] | None = None
) -> dict[str, list[Row]]:
    """The rows of ``split``, of ``individuals`` or of all, in the order recorded."""
    wanted = pc.field("split") == split
    if individuals is not None:
        wanted = wanted & pc.field("individual").isin(list(individuals))
    found: dict[str, list[Row]] = {}
    for row in lineage.table(table, where=wanted).to_pylist():
        found.setdefault(row["individual"], []).append(row)
    return found


def _changes(
    lineage: Lineage, config: RunConfig, founders: FounderSet, tasks: tuple[WeighedTask, ...]
) -> list[str]:
    """What of the code and the versions is not what the run was made with.

    Raises:
        EvoError: tasks or config are not, either.
    """
    then = RunDir(lineage.run_dir).read_manifest()
    # Founders have been checked, and only those that are needed are here.
    now = fingerprint(config, founders, tasks)
    now = replace(now, search=replace(now.search, founders=then.search.founders))
    found = changes(then, now)
    if found.fatal:
        raise EvoError(
            f"{lineage.run_dir} can't be verified:\n"
            + "\n".join(f"- {c}" for c in found.fatal)
            + "\nPut back what was there"
        )
    return list(found.code)


def _here(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """The config for this process, and what that changes."""
    here = config.model_copy(update={"pool": PoolConfig(kind="local")})
    device = config.engine.device
    there: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if device == "cpu" or there[device.partition(":")[0]]():
        return here, []
    engine = config.engine.model_copy(update={"device": "cpu"})
    note = f"the run's device was {device}, which is not here: evaluated on the cpu"
    return here.model_copy(update={"engine": engine}), [note]


def _checked(rows: Sequence[Row], items: Sequence[Row], now: JobResult) -> Checked:
    digests = [row["weights"] for row in rows if row["weights"] is not None]
    differences = [
        f"weights were {digest[:12]}.. and are {now.execution.weights[:12] or 'not built'}.."
        for digest in dict.fromkeys(digests)
        if digest != now.execution.weights
    ]
    failed = next((row["error"] for row in rows if row["status"] == "failed"), None)
    note = ""
    if failed is not None and now.ok and not digests:
        # It may never have come back from a host that was lost, or had no memory left.
        note = f"failed then, which nothing here repeats: {failed}"
    elif failed is not None and now.ok:
        differences.append(f"failed then ({failed}), and gets a score now")
    elif failed is None and not now.ok:
        differences.append(f"got a score then, and fails now: {now.error}")
    elif failed is None:
        differences += [*_other_scores(rows, now), *_other_values(rows, items, now)]
    return Checked(
        now.job.recipe.id,
        describe(now.job.recipe),
        {row["task"]: row["score"] for row in rows},
        len(items),
        digests[0] if digests else None,
        tuple(differences),
        note,
    )


def _other_scores(rows: Sequence[Row], now: JobResult) -> Iterator[str]:
    found = {r.query.task: r for r in now.results}
    for row in rows:
        task, was = row["task"], (row["score"], row["standard_error"])
        if task not in found:
            yield f"{task}: a task that the run does not have"
            continue
        met = found[task]
        if row["status"] == RACED:
            met = restricted(met, _met(row, met.examples))
        if met.mean != was[0]:
            yield f"{task}: the score was {was[0]!r} and is {met.mean!r}"
        elif met.standard_error != was[1]:
            yield f"{task}: the standard error was {was[1]!r} and is {met.standard_error!r}"


def _other_values(rows: Sequence[Row], items: Sequence[Row], now: JobResult) -> Iterator[str]:
    for result in now.results:
        task = result.query.task
        # What was recorded twice, as a baseline and in the search, has its examples twice.
        expected: list[int] = []
        for row in (r for r in rows if r["task"] == task):
            expected += (
                _met(row, result.examples) if row["status"] == RACED else range(result.examples)
            )
        mine = [i for i in items if i["task"] == task]
        if sorted(i["example"] for i in mine) != sorted(expected):
            yield f"{task}: {len(mine)} examples on record, and {len(expected)} now"
            continue
        other = [i for i in mine if i["value"] != result.values[i["example"]]]
        if other:
            first, value = other[0], result.values[other[0]["example"]]
            yield (
                f"{task}: {len(other)} of {len(mine)} examples differ, such as {first['example']}, which "
                f"was {first['value']!r} and is {value!r}"
            )


def _met(row: Row, count: int) -> list[int]:
    """Which examples an individual met that was dropped before it met all ``count``."""
    return sorted(example_order(count)[: row["examples"]])
