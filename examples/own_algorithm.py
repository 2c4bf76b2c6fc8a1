"""Your own algorithm in an ordinary run: a class that the config names, with settings of its own.

`examples/own_algorithm.yaml` names ``own_algorithm:Climber`` and sets its ``step``. Importable from anywhere:
PYTHONPATH=examples evo run examples/own_algorithm.yaml. This file also makes the founders that it evolves:
python examples/own_algorithm.py [RUN_DIR]
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import evo
from evo.algorithms import Candidate, Scored, Start
from evo.algorithms.protocol import founder_candidates
from operators.variation.mutation import from_task_vectors

HERE = Path(__file__).parent


class Climber:
    """(1+n): n neighbours of the best task-vector weights, every generation.

    The first argument is the Start; the keyword arguments are the settings in the config. Names and
    types are checked when the config is read.
    """

    def __init__(self, start: Start, *, step: float = 0.3, children: int = 8) -> None:
        self._start, self._step, self._children = start, step, children
        self._rng = np.random.default_rng(start.seed)  # its own generator, never a global one
        self._weights = np.full(len(start.founders), 1.0 / len(start.founders))
        self._asked: dict[str, np.ndarray] = {}
        self._best = -np.inf
        self.generation = -1
        self.population: tuple[Scored, ...] = ()

    def ask(self) -> list[Candidate]:
        if self.generation < 0:
            return founder_candidates(self._start)  # generation 0 of every algorithm
        parents = tuple(s.candidate.id for s in self.population[:1])
        made = []
        for _ in range(self._children):
            weights = self._weights + self._rng.normal(0.0, self._step, len(self._weights))
            recipe = from_task_vectors(self._start.founders, self._start.base, weights)
            self._asked[recipe.id] = weights
            made.append(Candidate(recipe, "climb", parents))
        return made

    def tell(self, evaluations: Sequence[Scored]) -> None:
        alive = [s for s in evaluations if np.isfinite(s.fitness)]  # NaN: it failed
        self.population = tuple(sorted(alive, key=lambda s: -s.fitness))
        for scored in self.population[:1]:
            if scored.candidate.id in self._asked and scored.fitness > self._best:
                self._best, self._weights = scored.fitness, self._asked[scored.candidate.id]
        self._asked.clear()
        self.generation += 1


def network() -> torch.nn.Module:
    """The module of all models here, made before weights are loaded into it."""
    return torch.nn.Linear(4, 4, bias=False)


def nearness(module: torch.nn.Module, split: str) -> list[float]:
    """One score in (0, 1] for each of 16 weights: how near it is to the target's."""
    weight = next(module.parameters())
    return torch.exp(-((weight - target(split)) ** 2)).flatten().tolist()


def target(split: str) -> torch.Tensor:
    """The sum of all three founders' differences; each split's is a little different."""
    return sum(change(name) for name in "abc") + {"dev": 0.0, "test": 0.01}[split]


def change(name: str) -> torch.Tensor:
    return torch.randn(4, 4, generator=torch.Generator().manual_seed(ord(name)))


def write_models(folder: Path) -> None:
    """A base of zeros and three founders."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weight": torch.zeros(4, 4)}, folder / "base.safetensors")
    for name in "abc":
        save_file({"weight": change(name)}, folder / f"{name}.safetensors")


def main(run_dir: Path) -> None:
    models = run_dir.parent / "own_models"
    write_models(models)
    config = evo.load_config(HERE / "own_algorithm.yaml", [f"root={models.resolve()}"])
    with evo.Evolution(config, run_dir) as run:
        for generation in run:
            print(f"{generation.number} {generation.best.fitness:.3f}")
        summary = run.finish()
    best = max(b.test for b in summary.baselines if b.kind == "founder")
    print(f"{config.algorithm.name}: {summary.winner.test:.3f}, best founder: {best:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo/own_algorithm"))
