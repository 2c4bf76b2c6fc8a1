"""Evolution for populations of models: from founders and a few examples to a better checkpoint."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evo import lineage
    from evo.by_hand import build, make, open_founders
    from evo.config.loader import load_config
    from evo.config.schema import BudgetConfig, EngineConfig, PoolConfig, RunConfig, TaskConfig
    from evo.errors import EvoError
    from evo.evolution import Evolution
    from evo.in_memory import Evolved, evolve
    from evo.reproduce.rebuild import rebuild
    from evo.run.pool import make_pool
    from evo.run_dir.summary import RunSummary
    from evo.search.progress import Generation
    from evo.trackers import Callback, TrackersConfig
    from fitness.examples import RowFormat
    from fitness.metrics.metric import ExampleScore, Metric, TaskOptions, Voting
    from fitness.requests import (
        Call,
        CallOutput,
        Generate,
        LogLikelihood,
        LogLikelihoodOutput,
        RollingLogLikelihood,
        RollingOutput,
    )

__all__ = [
    "BudgetConfig",
    "Call",
    "CallOutput",
    "Callback",
    "EngineConfig",
    "EvoError",
    "Evolution",
    "Evolved",
    "ExampleScore",
    "Generate",
    "Generation",
    "LogLikelihood",
    "LogLikelihoodOutput",
    "Metric",
    "PoolConfig",
    "RollingLogLikelihood",
    "RollingOutput",
    "RowFormat",
    "RunConfig",
    "RunSummary",
    "TaskConfig",
    "TaskOptions",
    "TrackersConfig",
    "Voting",
    "build",
    "evolve",
    "lineage",
    "load_config",
    "make",
    "make_pool",
    "open_founders",
    "rebuild",
]

_HOME = {
    "build": "evo.by_hand",
    "make": "evo.by_hand",
    "open_founders": "evo.by_hand",
    "BudgetConfig": "evo.config.schema",
    "EngineConfig": "evo.config.schema",
    "PoolConfig": "evo.config.schema",
    "RunConfig": "evo.config.schema",
    "RunSummary": "evo.run_dir.summary",
    "TaskConfig": "evo.config.schema",
    "load_config": "evo.config.loader",
    "EvoError": "evo.errors",
    "Evolution": "evo.evolution",
    "Evolved": "evo.in_memory",
    "evolve": "evo.in_memory",
    "rebuild": "evo.reproduce.rebuild",
    "make_pool": "evo.run.pool",
    "Generation": "evo.search.progress",
    "Callback": "evo.trackers",
    "TrackersConfig": "evo.trackers",
    "RowFormat": "fitness.examples",
    **dict.fromkeys(("ExampleScore", "Metric", "TaskOptions", "Voting"), "fitness.metrics.metric"),
    **dict.fromkeys(
        (
            "Call",
            "CallOutput",
            "Generate",
            "LogLikelihood",
            "LogLikelihoodOutput",
            "RollingLogLikelihood",
            "RollingOutput",
        ),
        "fitness.requests",
    ),
}


def __getattr__(name: str) -> Any:
    """Import on first use: `evo --help` must not wait for torch."""
    if name == "lineage":
        return import_module("evo.lineage")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'evo' has no attribute {name!r}")
