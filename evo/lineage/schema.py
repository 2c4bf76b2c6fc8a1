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
            ("id", _ID, False, "SHA-256 of the recipe's canonical JSON"),
            ("generation", pa.int32(), False, "when it was first tried; the founders are 0"),
            ("operator", pa.string(), False, "what made it, e.g. founder, crossover:average"),
            ("parents", pa.list_(pa.field("item", _ID, nullable=False)), False, "their ids"),
            ("recipe", pa.string(), False, "JSON that rebuilds it from the founders"),
            ("description", pa.string(), False, "the recipe, short, for people"),
            ("seed", pa.int64(), False, "of the operator's random draws; 0 where it drew none"),
        ),
        "evaluations": _schema(
            ("individual", _ID, False, "id"),
            ("generation", pa.int32(), False, "when it was evaluated"),
            ("task", pa.string(), False, "name of the task"),
            ("split", pa.string(), False, "dev, select or test"),
            ("score", pa.float64(), True, "mean over the examples; null if it failed"),
            ("standard_error", pa.float64(), True, "of the mean; null if it failed"),
            ("fitness", pa.float64(), True, "over all tasks of the split; null if it failed"),
            ("examples", pa.int32(), False, "how many were scored"),
            ("seconds", pa.float64(), False, "spent on it by the host and the scorer"),
            ("build_seconds", pa.float64(), False, "of these, on building the weights"),
            ("model_seconds", pa.float64(), False, "of these, on running the model"),
            ("tokens", pa.int64(), True, "run through the model; null where none were counted"),
            ("weights", pa.string(), True, "SHA-256 over the tensors that it ran with"),
            ("at_seconds", pa.float64(), False, "when it ended, by the clock of the search"),
            ("host", pa.string(), False, "who ran it"),
            ("attempt", pa.int32(), False, "1, or more after hosts were lost"),
            ("status", pa.string(), False, "ok or failed"),
            ("error", pa.string(), True, "why it failed"),
        ),
        "items": _schema(
            ("individual", _ID, False, "id"),
            ("task", pa.string(), False, "name of the task"),
            ("split", pa.string(), False, "dev, select or test"),
            ("example", pa.int32(), False, "position in the split's file, from 0"),
            ("value", pa.float64(), False, "the example's score"),
            ("answer", pa.string(), True, "what the model answered, where that is known"),
        ),
        "population": _schema(
            ("generation", pa.int32(), False, "a finished generation"),
            ("rank", pa.int32(), False, "0 is the best"),
            ("individual", _ID, False, "who was alive"),
            ("fitness", pa.float64(), True, "on dev, over all tasks; null if it failed"),
        ),
        "events": _schema(
            ("time", pa.timestamp("us", tz="UTC"), False, "when"),
            ("generation", pa.int32(), False, "in which generation"),
            ("kind", pa.string(), False, "start, resume, retry, failed, host lost, finish, ..."),
            ("detail", pa.string(), False, "what happened"),
        ),
    }
)
