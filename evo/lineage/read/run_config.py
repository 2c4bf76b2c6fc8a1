"""What of a run's manifest and config its lineage needs: layers, founders, weights of tasks."""

import json
from pathlib import Path

from evo.errors import EvoError
from evo.run_dir import RunDir
from operators.recipe import Founder


def layers_of(run_dir: Path) -> int | None:
    """Return how many layers a founder has, 0 for models without; None where the manifest is damaged."""
    try:
        return RunDir(run_dir).read_manifest().layers
    except EvoError:
        return None


def founder_id(run_dir: Path, name: str) -> str | None:
    """Return the id of the founder of that name; None if there is none, or the manifest is damaged."""
    try:
        digest = RunDir(run_dir).read_manifest().search.founders.get(name)
    except EvoError:
        return None
    return None if digest is None else Founder(name, digest).id


def task_shares(run_dir: Path) -> dict[str, float]:
    """Return each task's weight in the fitness, negative where a lower score is better.

    The absolute values add up to 1.

    Raises:
        EvoError: the run's config or manifest is missing or damaged.
    """
    path = RunDir(run_dir).config_path
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))["tasks"]
        weights = {t["name"]: float(t.get("weight", 1.0)) for t in tasks}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise EvoError(f"{path}: missing or damaged; it has the weights of the tasks") from error
    lower = RunDir(run_dir).read_manifest().lower_is_better
    total = sum(weights.values())
    return {name: (-w if name in lower else w) / total for name, w in weights.items()}
