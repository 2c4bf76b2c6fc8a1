"""TensorBoard: event files, written with its own record writer and without TensorFlow or torch."""

import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from evo.config.trackers import TensorboardSettings
from evo.run_dir.summary import RunSummary
from evo.trackers.protocol import TrackedRun, final_scores, metrics_of, parameters, report_path

if TYPE_CHECKING:
    from evo.search.progress import Generation

FOLDER = "tensorboard"


class TensorboardTracker:
    """Writes scalars by evaluations as step, and the config and the outcome as text.

    Each session has a file of its own, which begins with TensorBoard's restart record: readers then drop what a
    killed session wrote after its last recorded generation.
    """

    def __init__(self, settings: TensorboardSettings) -> None:
        self._file: BinaryIO | None = None
        self._last = 0

    def start(self, run: TrackedRun) -> str:
        """Open a new event file; the first one's name is that of the run."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder = run.run_dir / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        # Readers take files in the order of their names: a later session's must sort after an earlier's.
        stamp = f"{time.time():017.6f}"
        path = folder / f"events.out.tfevents.{stamp}.{socket.gethostname()}.{os.getpid()}"
        continues = bool(run.tracker_id) and (folder / run.tracker_id).is_file()
        self._run_dir = run.run_dir
        self._last = max(0, run.evaluations) if continues else 0
        self._file = path.open("xb")
        self._records = RecordWriter(self._file)
        restart = SessionLog(status=SessionLog.START)
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=run.evaluations + 1 if continues else 0, session_log=restart))
        if not continues:
            self._text("config", parameters(run.config), 0)
        self._flush()
        return run.tracker_id if continues else path.name

    def generation(self, generation: "Generation") -> None:
        """Write the scalars and flush the file."""
        self._last = generation.evaluations
        self._scalars(metrics_of(generation))

    def finish(self, summary: RunSummary) -> None:
        """Write the final scores and the winner's id."""
        winner = {"winner": summary.winner_id}
        if report := report_path(self._run_dir):
            winner["report"] = report
        self._text("outcome", winner, self._last)
        self._scalars(final_scores(summary))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _scalars(self, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        found = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(Event(step=self._last, summary=Summary(value=found)))
        self._flush()

    def _text(self, tag: str, rows: Mapping[str, str], step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        lines = ["| key | value |", "| --- | --- |"]
        lines += [f"| {key} | {value} |" for key, value in rows.items()]
        tensor = TensorProto(
            dtype=DT_STRING,
            string_val=["\n".join(lines).encode()],
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
        )
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        value = Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
        self._write(Event(step=step, summary=Summary(value=[value])))

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())

    def _flush(self) -> None:
        if self._file is not None:
            self._file.flush()
