"""Metrics of one's own: an ``evo.Metric`` with its own requests, and a plain function, both in this file.

Two small networks each learned one half of a wave; the winner fits both halves.
Run: python examples/own_metric.py [RUN_DIR]
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

import evo

POINTS = torch.linspace(-2.0, 2.0, 240).unsqueeze(1)
SPLITS = {"dev": "0", "select": "1", "test": "2"}  # a split is every third point, from this one on


def build() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))


def wave(start: str) -> torch.Tensor:
    return torch.sin(2.0 * POINTS[int(start) :: 3]).flatten()


def outputs_at(net: torch.nn.Module, start: str) -> torch.Tensor:
    return net(POINTS[int(start) :: 3]).flatten()


def ask(row, options):
    return (evo.Call("__main__:outputs_at", row["data"]),)


def squared_errors(row, outputs, options):
    pairs = zip(outputs[0].values, wave(row["data"]).tolist(), strict=True)
    return tuple(evo.ExampleScore((y - target) ** 2) for y, target in pairs)


ERROR = evo.Metric(
    name="squared_error",
    requests=ask,
    score=squared_errors,
    row_format=None,  # it takes the task's data strings, not files of rows
    higher_is_better=False,
)


def close(net: torch.nn.Module, start: str) -> torch.Tensor:
    """The simple form: a function of the module, with a score for each example; higher is better."""
    return ((outputs_at(net, start) - wave(start)).abs() < 0.3).float()


def train(path: Path, start: dict, low: float, high: float, steps: int) -> dict:
    net, rows = build(), POINTS[(low <= POINTS) & (high >= POINTS)].unsqueeze(1)
    net.load_state_dict(start)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        (net(rows) - torch.sin(2.0 * rows)).square().mean().backward()
        optimizer.step()
    save_file(net.state_dict(), path)
    return net.state_dict()


def main(run_dir: Path) -> None:
    torch.manual_seed(0)
    models = run_dir.with_name(run_dir.name + "-models")
    models.mkdir(parents=True, exist_ok=True)
    base = train(models / "base.safetensors", build().state_dict(), -2, 2, steps=20)
    train(models / "left.safetensors", base, -2, 0, steps=60)
    train(models / "right.safetensors", base, 0, 2, steps=60)
    config = evo.RunConfig(
        base=models / "base.safetensors",
        founders={name: models / f"{name}.safetensors" for name in ("left", "right")},
        engine=evo.EngineConfig(kind="module", build="__main__:build"),
        tasks=(
            evo.TaskConfig(name="error", metric=ERROR, data=SPLITS),
            evo.TaskConfig(name="close", metric=close, data=SPLITS, weight=0.1),
        ),
        budget=evo.BudgetConfig(evaluations=80),
    )
    with evo.Evolution(config, run_dir) as run:
        for _ in run:
            pass
        summary = run.finish()
    for row in summary.rows:
        print(row.name, " ".join(f"{name} {s.test:.4f}" for name, s in row.tasks.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo/own_metric"))
