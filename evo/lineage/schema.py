"""The five tables of a run, declared once: names, types, what may be null, and what each column means."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pyarrow as pa

from evo.errors import EvoError

SCHEMA_VERSION: Final = "3"


def _schema(*fields: tuple[str, pa.DataType, bool, str]) -> pa.Schema:
    return pa.schema(
        [
            pa.field(name, kind, nullable=nullable, metadata={"doc": doc})
            for name, kind, nullable, doc in fields
        ],
        metadata={"evo.schema": SCHEMA_VERSION},
    )


_ID = pa.string()

SCHEMAS: Final[Mapping[str, pa.Schema]] = MappingProxyType(
    {
        "individuals": _schema(
            (
                "id",
                _ID,
                False,
                "SHA-256 of the recipe's canonical JSON, 64 hex digits",
            ),
            (
                "generation",
                pa.int32(),
                False,
                "generation in which it was first evaluated; 0 for founders",
            ),
            (
                "operator",
                pa.string(),
                False,
                "how it was made, such as founder or crossover:average",
            ),
            (
                "parents",
                pa.list_(pa.field("item", _ID, nullable=False)),
                False,
                "ids of the individuals it was made from; empty for founders and random draws",
            ),
            (
                "recipe",
                pa.string(),
                False,
                "JSON from which, with the founders, its weights are rebuilt bit for bit",
            ),
            ("description", pa.string(), False, "the recipe in a short, readable form"),
            ("seed", pa.int64(), False, "seed of the operator's random draws; 0 without any"),
        ),
        "evaluations": _schema(
            ("individual", _ID, False, "foreign key to individuals.id"),
            ("generation", pa.int32(), False, "generation in which it was evaluated"),
            ("task", pa.string(), False, "name of the task"),
            ("split", pa.string(), False, "dev, select or test"),
            ("score", pa.float64(), True, "mean over the examples; null if it failed"),
            ("standard_error", pa.float64(), True, "of the mean; null if it failed"),
            (
                "fitness",
                pa.float64(),
                True,
                "weighted sum of the split's task scores (negative weight where lower is better) minus the path length penalty; the same value on each task's row; null if it failed; after a race an estimate below the fitness of every survivor of the round",
            ),
            ("examples", pa.int32(), False, "number of examples scored"),
            (
                "seconds",
                pa.float64(),
                False,
                "time of host and scorer; time shared by several tasks is divided equally",
            ),
            ("build_seconds", pa.float64(), False, "part of seconds: building the weights"),
            ("model_seconds", pa.float64(), False, "part of seconds: running the model"),
            (
                "tokens",
                pa.int64(),
                True,
                "tokens processed by the model; null if they were not counted",
            ),
            (
                "weights",
                pa.string(),
                True,
                "SHA-256 of the tensors that were evaluated; null if none were built",
            ),
            (
                "at_seconds",
                pa.float64(),
                False,
                "seconds of search when it ended, without the time between a stop and a resume",
            ),
            ("host", pa.string(), False, "name of the host"),
            ("attempt", pa.int32(), False, "1, or more if it was retried after a lost host"),
            (
                "status",
                pa.string(),
                False,
                "ok, failed, or raced (dropped by a race before it was scored on all examples)",
            ),
            ("error", pa.string(), True, "reason of the failure"),
        ),
        "items": _schema(
            ("individual", _ID, False, "foreign key to individuals.id"),
            ("task", pa.string(), False, "name of the task"),
            ("split", pa.string(), False, "dev, select or test"),
            ("example", pa.int32(), False, "position in the split's file, from 0"),
            ("value", pa.float64(), False, "score of the example"),
            ("answer", pa.string(), True, "the model's answer, if the metric has one"),
        ),
        "population": _schema(
            ("generation", pa.int32(), False, "the finished generation"),
            ("rank", pa.int32(), False, "0 is the best"),
            (
                "individual",
                _ID,
                False,
                "member of the population at its end: foreign key to individuals.id",
            ),
            ("fitness", pa.float64(), True, "fitness on dev; null if it failed"),
        ),
        "events": _schema(
            ("time", pa.timestamp("us", tz="UTC"), False, "time of the event"),
            ("generation", pa.int32(), False, "generation at that time"),
            (
                "kind",
                pa.string(),
                False,
                "start, resume, retry, failed, host lost, degraded, extended, finish, ...",
            ),
            ("detail", pa.string(), False, "what happened"),
        ),
    }
)

TABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "individuals": "One row for each individual that was proposed, in the order of proposal.",
        "evaluations": "One row for each evaluated individual, task and split, in the order recorded.",
        "items": "One row for each example of each evaluation that did not fail.",
        "population": "The members of the population at the end of each generation.",
        "events": "What happened to the run: starts, resumes, failures, lost hosts.",
    }
)
"""What a row of each table is."""


def check_version(version: str, path: Path) -> None:
    """Check that a file has the schema version that this package reads and writes.

    Raises:
        EvoError: it has another one.
    """
    if version != SCHEMA_VERSION:
        raise EvoError(
            f"{path}: written with schema {version or 'unknown'} of the lineage; this evo-models reads schema "
            f"{SCHEMA_VERSION} only. Use the evo-models version named in the run's manifest.json"
        )
