"""MLflow: a run of an experiment, on a tracking server or in a local store."""

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evo.config.trackers import MlflowSettings
from evo.run_dir.summary import RunSummary
from evo.trackers.protocol import TrackedRun, final_scores, metrics_of, parameters, report_path

if TYPE_CHECKING:
    from evo.search.progress import Generation

_LONGEST = 500  # characters of a parameter that every version of the server takes
_BATCH = 100  # parameters in one call, the server's limit
# By default, each call waits some minutes for a server that does not answer.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class MlflowTracker:
    """Logs metrics by evaluations as step, the config as parameters, and the winner as tags."""

    def __init__(self, settings: MlflowSettings) -> None:
        self._settings = settings
        self._client: Any = None
        self._id = ""
        self._logged: dict[str, int] = {}  # last step that a killed session logged, by metric
        self._last = 0

    def start(self, run: TrackedRun) -> str:
        """Create a run, or continue that of an earlier session."""
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        self._run_dir = run.run_dir
        self._client = MlflowClient(self._settings.uri)
        if run.tracker_id:
            try:
                self._client.get_run(run.tracker_id)
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
            else:
                self._id = run.tracker_id
                self._client.update_run(self._id, status="RUNNING")
                self._last = max(0, run.evaluations)
                self._logged = self._left_by_a_kill(run.evaluations)
                return self._id
        name = self._settings.experiment
        experiment = self._client.get_experiment_by_name(name)
        where = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self._id = str(self._client.create_run(where, run_name=run.name).info.run_id)
        given = [
            Param(key, value[:_LONGEST])
            for key, value in parameters({"algorithm_name": run.algorithm, **run.config}).items()
        ]
        for at in range(0, len(given), _BATCH):
            self._client.log_batch(self._id, params=given[at : at + _BATCH])
        return self._id

    def generation(self, generation: "Generation") -> None:
        self._last = generation.evaluations
        self._log(metrics_of(generation))

    def finish(self, summary: RunSummary) -> None:
        """Log the final scores, and mark the run as finished."""
        self._log(final_scores(summary))
        self._client.set_tag(self._id, "evo.winner", summary.winner_id)
        if report := report_path(self._run_dir):
            self._client.set_tag(self._id, "evo.report", report)
        self._client.set_terminated(self._id, "FINISHED")
        self._client = None

    def close(self) -> None:
        """Mark a run that has not finished as stopped; MLflow's word is killed."""
        client, self._client = self._client, None
        if client is not None and self._id:
            client.set_terminated(self._id, "KILLED")

    def _log(self, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        new = [
            Metric(key, value, now, self._last)
            for key, value in values.items()
            if self._last > self._logged.get(key, -1)
        ]
        if new:
            self._client.log_batch(self._id, metrics=new)

    def _left_by_a_kill(self, evaluations: int) -> dict[str, int]:
        """Metrics with steps after the last that was recorded, and final ones: logged before a kill."""
        logged = {}
        for key in self._client.get_run(self._id).data.metrics:
            last = max(m.step for m in self._client.get_metric_history(self._id, key))
            if last > evaluations or key.startswith("test"):
                logged[key] = last
        return logged
