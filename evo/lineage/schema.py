"""The five tables of a run, declared once: names, types, what may be null, and what each column means."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = "2"


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
                "the individual: SHA-256 of its recipe's canonical JSON, 64 hex digits",
            ),
            (
                "generation",
                pa.int32(),
                False,
                "in which it was first tried; that of the founders is 0",
            ),
            ("operator", pa.string(), False, "what made it, e.g. founder, crossover:average"),
            (
                "parents",
                pa.list_(pa.field("item", _ID, nullable=False)),
                False,
                "ids of those it was made from; empty for founders and for what was drawn at random",
            ),
            (
                "recipe",
                pa.string(),
                False,
                "JSON that, with the founders, gives its weights again to the bit",
            ),
            ("description", pa.string(), False, "the recipe, short, for people"),
            ("seed", pa.int64(), False, "of the operator's random draws; 0 where it drew none"),
        ),
        "evaluations": _schema(
            ("individual", _ID, False, "whose it is: an id of individuals"),
            ("generation", pa.int32(), False, "in which it was evaluated"),
            ("task", pa.string(), False, "name of the task"),
            ("split", pa.string(), False, "dev, select or test"),
            ("score", pa.float64(), True, "mean over the examples; null if it failed"),
            ("standard_error", pa.float64(), True, "of the mean; null if it failed"),
            (
                "fitness",
                pa.float64(),
                True,
                "over all tasks of the split, the same on each task's row: the scores weighted, those of lower-is-better tasks negative, less what a longer path costs; null if it failed; of one that was raced an estimate, below what any survivor of its round has",
            ),
            ("examples", pa.int32(), False, "how many were scored"),
            (
                "seconds",
                pa.float64(),
                False,
                "spent on it by host and scorer; what tasks share is split evenly among them",
            ),
            ("build_seconds", pa.float64(), False, "of these, on building the weights"),
            ("model_seconds", pa.float64(), False, "of these, on running the model"),
            ("tokens", pa.int64(), True, "run through the model; null where none were counted"),
            ("weights", pa.string(), True, "SHA-256 over the tensors that it ran with"),
            (
                "at_seconds",
                pa.float64(),
                False,
                "when it ended: seconds of search, not counting time between sittings",
            ),
            ("host", pa.string(), False, "name of the host that ran it"),
            ("attempt", pa.int32(), False, "1, or more after hosts were lost"),
            (
                "status",
                pa.string(),
                False,
                "ok, failed, or raced: dropped before it met all examples",
            ),
            ("error", pa.string(), True, "why it failed"),
        ),
        "items": _schema(
            ("individual", _ID, False, "whose it is: an id of individuals"),
            ("task", pa.string(), False, "name of the task"),
            ("split", pa.string(), False, "dev, select or test"),
            ("example", pa.int32(), False, "position in the split's file, from 0"),
            ("value", pa.float64(), False, "the example's score"),
            ("answer", pa.string(), True, "what the model answered, where that is known"),
        ),
        "population": _schema(
            ("generation", pa.int32(), False, "the finished generation"),
            ("rank", pa.int32(), False, "0 is the best"),
            ("individual", _ID, False, "who was alive at its end: an id of individuals"),
            ("fitness", pa.float64(), True, "on dev, over all tasks; null if it failed"),
        ),
        "events": _schema(
            ("time", pa.timestamp("us", tz="UTC"), False, "when"),
            ("generation", pa.int32(), False, "in which generation"),
            (
                "kind",
                pa.string(),
                False,
                "start, resume, retry, failed, host lost, degraded, finish, ...",
            ),
            ("detail", pa.string(), False, "what happened"),
        ),
    }
)

TABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "individuals": "Everyone who was ever tried, once, in the order met.",
        "evaluations": "A row for each individual, task and split that was evaluated, in the order recorded.",
        "items": "A row for each example of each evaluation that did not fail.",
        "population": "Who was alive at the end of each generation.",
        "events": "What happened to the run itself.",
    }
)
"""What a row of each table is."""
