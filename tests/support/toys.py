"""A torch module that takes no training, for tests of pools and loops: real hosts, instant scores.

The module is one vector x of four numbers; a split asks how near x is to a target, per coordinate.
Founders sit at corners, so evolution has something to find.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from evo.config.schema import RunConfig
from fitness.examples import Example, Row
from fitness.metrics.metric import Metric, TaskOptions
from fitness.requests import Call, CallOutput, Output, Request
from fitness.tasks.task import Task

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


def thread_count(module: Point, split: str) -> list[float]:
    return [float(torch.get_num_threads())]


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


def coordinates(module: Point, marker: str) -> list[float]:
    """The module itself; ``marker`` is a file that gets a byte for each call."""
    with open(marker, "ab") as calls:
        calls.write(b".")
    return module.x.tolist()


def long_answer(module: Point, split: str) -> list[float]:
    """More than Ray keeps with the caller: it stays on the host's node until it is fetched."""
    return [float(module.x[0])] * 50_000


def naps(module: Point, seconds: str) -> list[float]:
    time.sleep(float(seconds))
    return nearness(module, "dev")


def naps_until(module: Point, marker: str) -> list[float]:
    """Takes a while, as long as the file ``marker`` is not there."""
    time.sleep(0.0 if os.path.exists(marker) else 0.1)
    return nearness(module, "dev")


def hangs_for_b(module: Point, split: str) -> list[float]:
    if float(module.x[3]) == 0.5:
        time.sleep(3600)
    return nearness(module, split)


def hangs_once(module: Point, marker: str) -> list[float]:
    """As a host that has become slow: whoever comes next, somewhere else, is served."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return nearness(module, "dev")
    time.sleep(3600)
    return []


def greedy_for_b(module: Point, split: str) -> list[float]:
    """Founder b wants 2 GiB."""
    if float(module.x[3]) == 0.5:
        return [float(torch.ones(2**29).sum())]
    return nearness(module, split)


def overflows(module: Point, split: str) -> list[float]:
    return (torch.exp(1000 * module.x.abs().sum() + 1000)).reshape(1).tolist()


def _is_b(outputs: Sequence[Output]) -> bool:
    return isinstance(outputs[0], CallOutput) and outputs[0].values[3] == 0.5


def ask_coordinates(row: Row, options: TaskOptions) -> tuple[Request, ...]:
    return (Call("toys:coordinates", str(row["data"])),)


def score_plainly(row: Row, outputs: Sequence[Output], options: TaskOptions) -> float:
    return 1.0


def score_raises_for_b(row: Row, outputs: Sequence[Output], options: TaskOptions) -> float:
    if _is_b(outputs):
        raise ArithmeticError("b can't be scored")
    return 1.0


def score_hangs_for_b(row: Row, outputs: Sequence[Output], options: TaskOptions) -> float:
    if _is_b(outputs):
        time.sleep(3600)
    return 1.0


def score_kills_for_b(row: Row, outputs: Sequence[Output], options: TaskOptions) -> float:
    if _is_b(outputs):
        os._exit(1)
    return 1.0


def ask_long_answer(row: Row, options: TaskOptions) -> tuple[Request, ...]:
    return (Call("toys:long_answer", "dev"),)


def score_naps(row: Row, outputs: Sequence[Output], options: TaskOptions) -> float:
    time.sleep(0.3)
    return 1.0


SCORING = {
    "score_plainly": (ask_coordinates, score_plainly),
    "score_raises_for_b": (ask_coordinates, score_raises_for_b),
    "score_hangs_for_b": (ask_coordinates, score_hangs_for_b),
    "score_kills_for_b": (ask_coordinates, score_kills_for_b),
    "score_naps": (ask_coordinates, score_naps),
    "long_answer": (ask_long_answer, score_naps),
}


def scoring_tasks(calls: Path) -> tuple[Task, ...]:
    """The tasks of SCORING by name; in most of them models that are asked leave a mark in ``calls``."""
    example = (Example({"data": str(calls)}, 0),)
    return tuple(
        Task(
            name,
            Metric(name=name, requests=ask, score=score, row_format=None),
            TaskOptions(),
            {"dev": example},
        )
        for name, (ask, score) in SCORING.items()
    )


def nearness_if_b(module, split):
    """Not a number where x[1] is 0, as it is in founders a and c."""
    return [value + 0 * float(1.0 / module.x[1]) for value in nearness(module, split)]
