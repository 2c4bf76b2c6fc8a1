"""Networks in memory, a function as the fitness: no files, no config.

Two small networks each learned one half of a function; the evolved one knows both halves.
Run: python examples/in_memory.py [RUN_DIR]
"""

import copy
import sys
from pathlib import Path

import torch

import evo

X = torch.linspace(-2.0, 2.0, 256).unsqueeze(1)
Y = torch.sin(2.0 * X)


def train(net: torch.nn.Module, rows: torch.Tensor, steps: int) -> torch.nn.Module:
    """A copy of ``net`` that was trained on some rows of the function."""
    net = copy.deepcopy(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(steps):
        loss = (net(X[rows]) - Y[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def score(net: torch.nn.Module) -> float:
    """Higher is better: minus the mean squared error over the whole range."""
    with torch.no_grad():
        return -float((net(X) - Y).square().mean())


def main(run_dir: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    ancestor = train(net, torch.arange(256), steps=20)
    left = train(ancestor, torch.arange(128), steps=60)
    right = train(ancestor, torch.arange(128, 256), steps=60)
    found = evo.evolve(
        ancestor, {"left": left, "right": right}, score, evaluations=100, run_dir=run_dir
    )
    for name, model in {"left": left, "right": right, "evolved": found.net}.items():
        print(f"{name:8s} {score(model):.4f}")
    print(
        evo.lineage.open(found.run_dir).ancestors("best", ["operator", "description"]).to_pandas()
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo/in_memory"))
