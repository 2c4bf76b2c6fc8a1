"""Fingerprint: the manifest of a config, its founders and its tasks, as they are now."""

import hashlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evo.run.code import SCORE_CODE, SEARCH_CODE, code_digests, user_code_digests
from evo.run_dir.manifest import RunManifest, ScoreInputs, SearchInputs, digest, rows_digest
from evo.versions import versions

if TYPE_CHECKING:  # these import torch
    from cluster.founders.checkpoints import FounderSet
    from evo.config.schema import RunConfig
    from evo.search.objective import WeighedTask

SCORE_VERSIONS = ("torch", "transformers", "numpy")
SEARCH_VERSIONS = ("numpy", "cmaes")
# What may change when a run is resumed: places, processes, trackers, and when the search ends.
_FREE = ("pool", "root", "base", "founders", "trackers", "reuse", "budget")
# A task's weight, and what chooses its examples, which have a digest of their own.
_NOT_SCORES = ("weight", "files", "data", "limit")
# The files beside a base's tensors that decide what it reads and writes.
_BESIDE = (
    *("config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json"),
    *("added_tokens.json", "vocab*", "merges.txt", "chat_template*"),
)


def fingerprint(
    config: "RunConfig",
    founders: "FounderSet",
    tasks: "tuple[WeighedTask, ...]",
    notes: Sequence[str] = (),
) -> RunManifest:
    """Return the manifest of a run that would start now; the run adds what it decides at its start."""
    from evo.algorithms import traits  # imports torch

    found = versions()
    settings = config_digests(config)
    scoring = {key: value for key, value in settings.items() if _decides_scores(key, config)}
    functions = {t.metric for t in config.tasks} | {config.engine.build}
    return RunManifest(
        ScoreInputs(
            founders.base.founder.digest,
            base_files(founders.base.path),
            task_digests(tasks),
            scoring,
            code_digests(SCORE_CODE),
            user_code_digests(sorted(f for f in functions if ":" in f)),
            {name: found[name] for name in SCORE_VERSIONS},
            processor(),
        ),
        SearchInputs(
            {f.founder.name: f.founder.digest for f in founders.founders},
            {key: value for key, value in settings.items() if key not in scoring},
            code_digests(SEARCH_CODE),
            user_code_digests(traits(config.algorithm).code),
            {name: found[name] for name in SEARCH_VERSIONS},
            evaluations=config.budget.evaluations,
        ),
        founders.layers,
        tuple(t.task.name for t in tasks if not t.task.higher_is_better),
        tuple(notes),
        found,
    )


def config_digests(config: "RunConfig") -> dict[str, str]:
    """Return a digest for each key that decides a run's course; of ``founders`` the names in order."""
    keys = {**dict(_keys(config.model_dump(mode="json"))), "founders": list(config.founders)}
    return {key: digest(value)[:16] for key, value in keys.items()}


def base_files(path: Path) -> dict[str, str]:
    """Return digests of the small files in a checkpoint's folder (config, tokenizer), by name."""
    if not path.is_dir():
        return {}
    found = {p for pattern in _BESIDE for p in path.glob(pattern) if p.is_file()}
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(found)}


def processor() -> str:
    """Return the architecture and the model of this machine's processor, as far as they are known."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()} {names[0] if names else platform.processor()}".strip()


def task_digests(tasks: "tuple[WeighedTask, ...]") -> dict[str, str]:
    """Return a digest of the examples of each split of each task, by ``task.split``."""
    return {
        f"{t.task.name}.{split}": rows_digest([e.row for e in examples])
        for t in tasks
        for split, examples in t.task.splits.items()
    }


def _decides_scores(key: str, config: "RunConfig") -> bool:
    """Whether a key of the config decides the score of a recipe. Weights and choices of examples do not."""
    for task in config.tasks:
        if key.startswith(prefix := f"tasks.{task.name}."):
            return key.removeprefix(prefix).partition(".")[0] not in _NOT_SCORES
    return key.startswith(("engine.", "racing.rungs"))


def _keys(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        key = f"{prefix}{name}"
        if key == "tasks":
            for task in value:
                yield from _keys(task, f"tasks.{task['name']}.")
        elif isinstance(value, Mapping) and value:
            yield from _keys(value, f"{key}.")
        elif key.split(".")[0] not in _FREE and not (key.startswith("tasks.") and ".files." in key):
            yield key, value
