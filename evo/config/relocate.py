"""A config with its paths changed for another machine, which gets the config's folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.submit.working_folder import is_left_out
from evo.config.loader import load_config
from evo.errors import EvoError


def relocate(config: Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """The config as it must be in the shipped folder, and the paths that must exist on the cluster.

    A path within the config's folder is shipped and becomes relative. Any other becomes absolute,
    and must exist on the cluster.

    Returns:
        The config as JSON-compatible data, and a line for each path that is not shipped.

    Raises:
        EvoError: the config is wrong, or a path in its folder does not exist or is not shipped whole.
    """
    data = load_config(config, overrides, check_files=False).model_dump(mode="json")
    folder = config.resolve().parent
    elsewhere: list[str] = []

    def moved(key: str, text: str) -> str:
        path = Path(text).resolve()
        if path.is_relative_to(folder):
            _check_shipped(config, key, path, folder)
            return path.relative_to(folder).as_posix()
        elsewhere.append(f"{key}: {path}")
        return str(path)

    data["root"] = "."
    data["base"] = moved("base", data["base"])
    data["founders"] = {n: moved(f"founders.{n}", p) for n, p in data["founders"].items()}
    for task in data["tasks"]:
        task["files"] = {s: moved(f"{task['name']}.{s}", p) for s, p in task["files"].items()}
    elsewhere += [f"reuse: {path}" for path in data["reuse"]]
    pool = {**data["pool"], "kind": "ray", "address": "auto"}
    data["pool"] = pool | {"hosts": pool["hosts"] or "auto"}
    return data, [
        f"not shipped, must be on the cluster at the same path: {text}" for text in elsewhere
    ]


def _check_shipped(config: Path, key: str, path: Path, folder: Path) -> None:
    if not path.exists():
        raise EvoError(f"{config}: {key}: no such file or folder: {path}")
    inside = path.relative_to(folder)
    if is_left_out(inside):
        raise EvoError(
            f"{config}: {key}: {path} would not be shipped: hidden folders and folders named "
            f"{inside.parts[0]!r} are left out. Move it, or put it outside of {folder}, where the "
            "cluster sees it too"
        )
    for file in path.rglob("*"):
        if file.is_file() and not file.resolve().is_relative_to(folder):
            raise EvoError(
                f"{config}: {key}: {file} is a link that leads out of {folder}, and would not be "
                "shipped. Put the file itself there, or name the folder that it is in"
            )
