"""Weights & Biases, online or offline."""

import secrets
from typing import TYPE_CHECKING, Any

from evo.config.trackers import WandbSettings
from evo.run_dir.summary import RunSummary
from evo.trackers.protocol import TrackedRun, final_scores, metrics_of, report_path

if TYPE_CHECKING:
    from evo.search.progress import Generation


class WandbTracker:
    """Logs metrics by evaluations as step, the config, and the outcome as the run's summary.

    What is logged twice after a kill is dropped by the server, which accepts each step once. Offline, each
    session has a folder of its own with the same run's id, and `wandb sync` joins them.
    """

    def __init__(self, settings: WandbSettings) -> None:
        self._settings = settings
        self._run: Any = None

    def start(self, run: TrackedRun) -> str:
        """Create a run, or continue that of an earlier session in the same project."""
        import wandb

        project = f"{self._settings.entity or ''}/{self._settings.project}"
        before, _, name = run.tracker_id.rpartition("/")
        name = name if name and before == project else secrets.token_hex(4)
        self._run_dir = run.run_dir
        self._run = wandb.init(
            project=self._settings.project,
            entity=self._settings.entity,
            mode=self._settings.mode,
            id=name,
            resume="allow",
            name=run.name,
            config={"algorithm_name": run.algorithm, **run.config},
            dir=str(run.run_dir),
            # The terminal is the run's own, and a server that can't be reached is reported soon.
            settings=wandb.Settings(console="off", silent=True, init_timeout=30),
        )
        return f"{project}/{name}"

    def generation(self, generation: "Generation") -> None:
        self._run.log(metrics_of(generation), step=generation.evaluations, commit=True)

    def finish(self, summary: RunSummary) -> None:
        """The final scores go to the run's summary: they are one row, not a curve."""
        self._run.summary.update(final_scores(summary) | {"winner": summary.winner_id})
        if report := report_path(self._run_dir):
            self._run.summary["report"] = report
        self._end(0)

    def close(self) -> None:
        self._end(1)

    def _end(self, code: int) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.finish(exit_code=code)
