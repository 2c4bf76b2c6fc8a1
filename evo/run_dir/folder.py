"""RunDir: the one place that knows the names of a run's files."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evo.errors import EvoError
from evo.files import write_json
from evo.run_dir.lock import RunLock, lock_holder
from evo.run_dir.manifest import RunManifest, read_manifest, write_manifest
from evo.run_dir.summary import RunSummary, read_summary, write_summary

if TYPE_CHECKING:  # pydantic and the algorithms, which reading a lineage does without
    from evo.config.schema import RunConfig


@dataclass(frozen=True, slots=True)
class RunDir:
    """A run directory: the path of each of its files, and how to read and write them."""

    path: Path

    @property
    def config_path(self) -> Path:
        """The config that the run was made with."""
        return self.path / "config.json"

    @property
    def manifest_path(self) -> Path:
        """What the run was made with, as digests; see :class:`RunManifest`."""
        return self.path / "manifest.json"

    @property
    def summary_path(self) -> Path:
        """What a finished run found; see :class:`RunSummary`."""
        return self.path / "summary.json"

    @property
    def lineage(self) -> Path:
        """The folder of the lineage's tables."""
        return self.path / "lineage"

    @property
    def journal(self) -> Path:
        """The evaluations that no commit of the lineage holds yet."""
        return self.lineage / "journal.arrows"

    @property
    def report_path(self) -> Path:
        """Where `evo report` writes by default."""
        return self.path / "report.html"

    @property
    def trackers_path(self) -> Path:
        """How far each tracker has followed the run."""
        return self.path / "trackers.json"

    @property
    def tensorboard(self) -> Path:
        """The event files of the TensorBoard tracker."""
        return self.path / "tensorboard"

    @property
    def lock_path(self) -> Path:
        """Locked by the process that works on the run."""
        return self.path / "lock"

    @property
    def damaged(self) -> Path:
        """Where `evo resume --repair` moves damaged files."""
        return self.path / "damaged"

    @property
    def founders(self) -> Path:
        """The aligned checkpoints, where vocabularies were aligned. Absolute."""
        return self.path.resolve() / "founders"

    @property
    def aligned_path(self) -> Path:
        """The names of those checkpoints."""
        return self.path / "aligned.json"

    @property
    def models(self) -> Path:
        """The founders that came from memory; see :func:`evo.evolve`."""
        return self.path / "models"

    def baseline(self, name: str) -> "RunDir":
        """The directory of a baseline that is a search of its own."""
        return RunDir(self.path / "baselines" / name)

    def baselines(self) -> "list[RunDir]":
        """The directories of all such baselines that there are."""
        return [RunDir(path) for path in sorted((self.path / "baselines").glob("*"))]

    @property
    def has_run(self) -> bool:
        """Whether a run has started here."""
        return self.config_path.exists() or self.lineage.exists()

    @property
    def is_starting(self) -> bool:
        """Whether a process is starting a run here that has nothing to read yet."""
        return not self.config_path.exists() and self.holder() is not None

    def lock(self) -> RunLock:
        """Lock the directory for this process; creates it if needed.

        Raises:
            EvoError: another process works on the run.
        """
        return RunLock(self.lock_path)

    def holder(self) -> str | None:
        """Return the process that works on the run; None if there is none."""
        return lock_holder(self.lock_path)

    def read_config(self, *, check_files: bool) -> "RunConfig":
        """Return the config that the run was made with.

        Raises:
            EvoError: there is no run, or its config is missing, damaged or no longer valid.
        """
        from pydantic import ValidationError

        from evo.config.schema import RunConfig

        path = self.config_path
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            if self.lineage.exists():
                raise EvoError(f"{path}: missing; restore the file to work with the run") from error
            if process := self.holder():
                raise EvoError(f"{self.path}: {process} is starting a run here") from error
            raise EvoError(f"{self.path}: no run here (there is no {path.name})") from error
        except ValueError as error:
            raise EvoError(f"{path}: damaged ({error}). Restore the file") from error
        try:
            return RunConfig.model_validate_json(text, context={"check_files": check_files})
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            where = f"{key}: " if key else ""
            raise EvoError(
                f"{path}: the run's config is no longer valid: {where}{first['msg']}"
            ) from error
        except ValueError as error:
            raise EvoError(f"{path}: damaged ({error}). Restore the file") from error

    def write_config(self, config: "RunConfig") -> None:
        """Write the config, whole or not at all."""
        write_json(self.config_path, config.model_dump(mode="json"))

    def read_manifest(self) -> RunManifest:
        """Return what the run was made with.

        Raises:
            EvoError: the file is missing or damaged.
        """
        return read_manifest(self.manifest_path)

    def write_manifest(self, manifest: RunManifest) -> None:
        """Write the manifest, whole or not at all."""
        write_manifest(self.manifest_path, manifest)

    def read_summary(self) -> RunSummary | None:
        """Return what the run found; None where it has not finished.

        Raises:
            EvoError: the file is damaged.
        """
        return read_summary(self.summary_path)

    def write_summary(self, summary: RunSummary) -> None:
        """Write the summary, whole or not at all."""
        write_summary(self.summary_path, summary)
