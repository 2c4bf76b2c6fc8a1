"""A torch module that takes no training, for tests of pools and loops: real hosts, instant scores.

The module is one vector x of four numbers; a split asks how near x is to a target, per coordinate.
Founders sit at corners, so evolution has something to find.
"""

import os
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from evo.config import RunConfig

TARGET = (0.9, 0.4, -0.7, 0.2)
FOUNDERS = {"a": (1.0, 0.0, 0.0, 0.0), "b": (0.0, 1.0, 0.0, 0.5), "c": (0.0, 0.0, -1.0, 0.0)}


class Point(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x = torch.nn.Parameter(torch.zeros(4))


def build() -> Point:
    return Point()


def nearness(module: Point, split: str) -> list[float]:
    """One value in (0, 1] for each coordinate; every split has a slightly different target."""
    target = torch.tensor(TARGET) + {"dev": 0.0, "select": 0.01, "test": 0.02}[split]
    return torch.exp(-((module.x - target) ** 2)).tolist()


def deadly(module: Point, split: str) -> list[float]:
    """Kills its host when it meets founder b exactly, once for each file named in the split."""
    if float(module.x[3]) == 0.5:
        os._exit(1)
    return nearness(module, "dev")


def once_deadly(module: Point, marker: str) -> list[float]:
    """Kills its host the first time it is called; ``marker`` is a file that remembers."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return nearness(module, "dev")
    os._exit(1)


def slow_for_a(module: Point, split: str) -> list[float]:
    """Founder a takes longest, so completion comes in another order than submission."""
    time.sleep(0.2 if float(module.x[0]) == 1.0 else 0.0)
    return nearness(module, split)


def broken_for_b(module: Point, split: str) -> list[float]:
    if float(module.x[3]) == 0.5:
        raise ZeroDivisionError("no fitness for b")
    return nearness(module, split)


def write_founders(
    folder: Path, founders: dict[str, tuple[float, ...]] = FOUNDERS
) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, x in {"base": (0.0,) * 4, **founders}.items():
        paths[name] = folder / f"{name}.safetensors"
        save_file({"x": torch.tensor(x)}, paths[name])
    return paths


def toy_config(folder: Path, **changes: object) -> RunConfig:
    """A run over the toy founders, in this process unless told otherwise."""
    paths = write_founders(folder)
    data: dict[str, object] = {
        "base": paths.pop("base"),
        "founders": paths,
        "engine": {"kind": "module", "build": "toys:build"},
        "tasks": [
            {
                "name": "toy",
                "metric": "toys:nearness",
                "data": {"dev": "dev", "select": "select", "test": "test"},
            }
        ],
        "pool": {"kind": "local"},
        "budget": {"evaluations": 60},
    }
    return RunConfig.model_validate({**data, **changes})


def never(module: Point, split: str) -> list[float]:
    raise ZeroDivisionError("no fitness for anybody")
