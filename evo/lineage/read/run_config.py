"""What a run was frozen with, as far as its lineage needs it: layers, founders, tasks' weights. Imports nothing heavy."""

import json
from pathlib import Path
from typing import Any

from evo.errors import EvoError
from fitness.metrics import METRICS
from operators.build.architectures import ArchitectureError, architecture_of
from operators.recipe import Founder


def layers_of(run_dir: Path) -> int | None:
    """How many layers a founder has; 0 for models without.

    None where the run is of before that was written down, and the base has gone.
    """
    start = _read(run_dir / "start.json")
    if "layers" in start:
        return int(start["layers"])
    config = _read(run_dir / "config.json")
    if config.get("engine", {}).get("kind") == "module":
        return 0
    try:
        model = _read(Path(config["base"]) / "config.json")
        return int(model[architecture_of(model).depth])
    except (KeyError, TypeError, ArchitectureError):
        return None


def founder_id(run_dir: Path, name: str) -> str | None:
    """The id of the founder of that name; None if there is none."""
    digest = _read(run_dir / "start.json").get("founders", {}).get(name)
    return None if digest is None else Founder(name, str(digest)).id


def task_shares(run_dir: Path) -> dict[str, float]:
    """Each task's weight in the fitness, negative where a lower score is better; |weights| add up to 1.

    Raises:
        EvoError: the run's config is gone or damaged.
    """
    path = run_dir / "config.json"
    try:
        weights = {t["name"]: float(t.get("weight", 1.0)) for t in _read(path)["tasks"]}
        metrics = {t["name"]: str(t["metric"]) for t in _read(path)["tasks"]}
    except (KeyError, TypeError, ValueError) as error:
        raise EvoError(f"{path}: gone or damaged, and it says how the tasks are weighed") from error
    lower = _read(run_dir / "start.json").get("lower_is_better")
    if lower is None:
        lower = [n for n, m in metrics.items() if m in METRICS and not METRICS[m].higher_is_better]
    total = sum(weights.values())
    return {name: (-w if name in lower else w) / total for name, w in weights.items()}


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
