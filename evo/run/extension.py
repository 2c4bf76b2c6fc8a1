"""Extension: a run that has finished or was stopped continues with a larger budget of evaluations.

The search is replayed with the larger budget, so an extended run is the same as one that had it from the
start. What the earlier budget ended with stays committed: see ``evo.lineage.storage.commits``.
"""

from dataclasses import dataclass, replace

from evo.errors import EvoError
from evo.lineage.storage.commits import extended_name, looks
from evo.lineage.storage.writer import LineageWriter
from evo.run.recovery import Past
from evo.run_dir import RunDir
from evo.run_dir.manifest import RunManifest

# Where one of these ended the search, more evaluations do not continue it.
_OTHER_ENDS = ("generations", "seconds", "target", "patience", "no new candidates")


@dataclass(frozen=True, slots=True)
class Extension:
    """A larger budget of evaluations for a run, and the line about it for the lineage's events."""

    evaluations: int
    manifest: RunManifest
    detail: str
    look: int


def extension_of(run_dir: RunDir, past: Past, evaluations: int) -> Extension:
    """Check that a run can be extended to ``evaluations``. Nothing is written.

    Raises:
        EvoError: the run has as many evaluations already, or it ended for another reason than its budget of
            evaluations; or ``evaluations`` is no whole number.
    """
    if type(evaluations) is not int:
        raise EvoError(
            f"{run_dir.path}: budget.evaluations: expected a whole number, got {evaluations!r}"
        )
    manifest = run_dir.read_manifest()
    before = run_dir.read_config(check_files=False).budget.evaluations
    done = past.searched(before)
    if evaluations < done or (past.is_finished and evaluations == done):
        raise EvoError(
            f"{run_dir.path}: budget.evaluations: {evaluations}, but the run has {done} evaluations already; "
            "give a larger number"
        )
    summary = run_dir.read_summary() if past.is_finished else None
    if summary is not None and summary.stopped_by in _OTHER_ENDS:
        reason = summary.stopped_by
        reason = reason if reason.startswith("no ") else f"budget.{reason}"
        raise EvoError(
            f"{run_dir.path}: the search was stopped by {reason}, so more evaluations do not continue it. "
            "Start a new run; with --reuse it takes over what this run evaluated"
        )
    detail = f"budget.evaluations {before or 'unlimited'} -> {evaluations}"
    look = looks(past.committed)
    if past.is_finished:
        look += 1
        detail += f"; test is scored again: look {look}"
    stops = manifest.search.stops
    if before is not None and done >= before and before not in stops:
        stops = (*stops, before)
    manifest = replace(manifest, search=replace(manifest.search, stops=stops))
    return Extension(evaluations, manifest, detail, look)


def record_extension(run_dir: RunDir, past: Past, extension: Extension) -> None:
    """Write an extension to the run directory.

    The commit is last: without it a finished run stays finished, and can be extended again.
    """
    run_dir.write_manifest(extension.manifest)
    config = run_dir.read_config(check_files=False)
    budget = config.budget.model_copy(update={"evaluations": extension.evaluations})
    run_dir.write_config(config.model_copy(update={"budget": budget}))
    if past.is_finished:
        writer = LineageWriter(run_dir.lineage)
        writer.event("extended", extension.detail, past.generations, news=True)
        writer.commit(extended_name(extension.look))
