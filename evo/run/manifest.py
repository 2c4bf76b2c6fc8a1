"""Drift: what a run was made with (``start.json``), and what of it has changed since."""

import hashlib
import importlib.util
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evo.errors import EvoError
from evo.lineage.summary import versions, write_json

if TYPE_CHECKING:  # these import torch, which who reads a run does without
    from cluster.founders.checkpoints import FounderSet
    from evo.config.schema import RunConfig
    from evo.search.evaluator import WeighedTask

START_FILE = "start.json"
_PACKAGES = ("evo", "cluster", "fitness", "operators")
DECISIVE = ("evo-models", "torch", "transformers", "numpy", "cmaes")  # for ids or for scores
# Where things are, who runs them and who is told may change between sittings; what they hold may not.
_FREE = ("pool", "root", "base", "founders", "trackers", "reuse")
# What stands beside a base's tensors and decides what it reads and says.
_BESIDE = (
    *("config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json"),
    *("added_tokens.json", "vocab*", "merges.txt", "chat_template*"),
)


def made_with(
    config: "RunConfig", founders: "FounderSet", tasks: "tuple[WeighedTask, ...]"
) -> dict[str, Any]:
    """All that the run's course depends on, as digests that can be compared, by section."""
    return {
        "founders": founder_digests(founders),
        "base_files": base_files(founders.base.path),
        "processor": processor(),
        "tasks": task_digests(tasks),
        "config": config_digests(config),
        "functions": {name: _source(name) for name in _functions(config)},
        "code": {name: _code(name) for name in _PACKAGES},
        "versions": versions(),
        "layers": founders.layers,
        "lower_is_better": [t.task.name for t in tasks if not t.task.higher_is_better],
    }


def founder_digests(founders: "FounderSet") -> dict[str, str]:
    """What the base and each founder hold, by name."""
    files = (founders.base, *founders.founders)
    return {"base" if f is files[0] else f.founder.name: f.founder.digest for f in files}


def base_files(path: Path) -> dict[str, str]:
    """What the small files of a checkpoint's folder hold (config, tokenizer, chat template), by name."""
    if not path.is_dir():
        return {}
    found = {p for pattern in _BESIDE for p in path.glob(pattern) if p.is_file()}
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(found)}


def processor() -> str:
    """The machine's processor, as far as it tells: other kinds round otherwise in the last bits."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()} {names[0] if names else platform.processor()}".strip()


def task_digests(tasks: "tuple[WeighedTask, ...]") -> dict[str, str]:
    """What each split of each task holds, by ``task.split``."""
    return {
        f"{t.task.name}.{split}": rows_digest([e.row for e in examples])
        for t in tasks
        for split, examples in t.task.splits.items()
    }


def rows_digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """What a split holds, in one digest."""
    return _digest([dict(row) for row in rows])


def config_digests(config: "RunConfig") -> dict[str, str]:
    """A digest for each key that decides a run's course; of ``founders`` the names in their order."""
    keys = {**dict(_keys(config.model_dump(mode="json"))), "founders": list(config.founders)}
    return {key: _digest(value)[:16] for key, value in keys.items()}


def write_start(run_dir: Path, made: Mapping[str, Any]) -> None:
    """Write ``start.json``, whole or not at all."""
    write_json(run_dir / START_FILE, {**made, "check": _digest(made)})


def read_start(run_dir: Path) -> dict[str, Any]:
    """What ``start.json`` says.

    Raises:
        EvoError: it is missing or damaged.
    """
    path = run_dir / START_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EvoError(f"{path}: missing, so nothing says what the run began with") from error
    except ValueError as error:
        raise EvoError(f"{path}: damaged ({error})") from error
    if not isinstance(found, dict) or found.pop("check", "") != _digest(found):
        raise EvoError(
            f"{path}: damaged (its bytes are not those that were written). Restore the file"
        )
    return found


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What has changed: what no run survives (founders, tasks, config), and code and versions."""
    fatal = [
        *_differing(then, now, "founders", "founder {}: its tensors are others than at the start"),
        *_differing(
            then if "base_files" in then else now,
            now,
            "base_files",
            "{} beside the base has changed",
        ),
        *_differing(then, now, "tasks", "task {}: its examples are others than at the start"),
        *_differing(then, now, "config", "config.json, key {}: is not what it was at the start"),
    ]
    code = [
        *_differing(then, now, "functions", "{}: the file that defines it has changed"),
        *_differing(then, now, "code", "the code of evo-models has changed, in {}/"),
    ]
    was, is_ = then.get("versions", {}), now["versions"]
    code += [
        f"{name} was {was.get(name, 'absent')} and is {is_[name]}"
        for name in DECISIVE
        if was.get(name) != is_[name]
    ]
    return fatal, code


def check_drift(run_dir: Path, now: Mapping[str, Any], *, accept_code: bool) -> list[str]:
    """Refuse to go on with what has changed; gives the changes of code that were accepted.

    Raises:
        EvoError: names each file, key or version that is another one now.
    """
    fatal, code = changes(read_start(run_dir), now)
    if fatal:
        raise EvoError(
            f"{run_dir} can't go on:\n"
            + "\n".join(f"- {c}" for c in fatal)
            + "\nPut back what was there, or begin a new run"
        )
    if code and not accept_code:
        raise EvoError(
            f"{run_dir} was made with other code:\n"
            + "\n".join(f"- {c}" for c in code)
            + "\nGo on with what was there, or with --accept-drift: what was evaluated stays as it is, "
            "what is still to come may score otherwise in the last digits"
        )
    return code


def _differing(
    then: Mapping[str, Any], now: Mapping[str, Any], section: str, text: str
) -> list[str]:
    if section not in then or section not in now:  # a run from before it was recorded
        return []
    was, is_ = then[section], now[section]
    names = sorted(was.keys() | is_.keys())
    return [text.format(name) for name in names if was.get(name) != is_.get(name)]


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


def _functions(config: "RunConfig") -> list[str]:
    from evo.algorithms import traits  # imports torch

    named = [t.metric for t in config.tasks if ":" in t.metric]
    return sorted(
        {
            *named,
            *traits(config.algorithm).code,
            *([config.engine.build] if config.engine.build else []),
        }
    )


def _source(name: str) -> str:
    """Digest of the file that a function "package.module:name" stands in."""
    spec = importlib.util.find_spec(name.partition(":")[0])
    origin = Path(spec.origin) if spec and spec.origin else None
    return hashlib.sha256(origin.read_bytes()).hexdigest() if origin and origin.is_file() else ""


def _code(package: str) -> str:
    """Digest of all of a package's source files."""
    folder = Path(__file__).parents[1] / package
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
