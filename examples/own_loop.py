"""Your own loop: no run, no config. Ask an algorithm, build the models, score them yourself, tell it.

Three small networks that each know one of three targets are evolved to a network that is near all.
Run: python examples/own_loop.py [FOLDER]
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

import evo
from evo.algorithms import Scored


def write_founders(folder: Path) -> dict[str, Path]:
    """Checkpoints of a linear layer, each tuned in a direction of its own, and their base."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(8, 8, generator=generator)
    tensors = {"base": base}
    for name in ("red", "green", "blue"):
        tensors[name] = base + torch.randn(8, 8, generator=generator)
    for name, weight in tensors.items():
        save_file({"weight": weight}, folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in tensors}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    paths = write_founders(folder)
    founders = evo.open_founders(
        {name: path for name, path in paths.items() if name != "base"}, base=paths["base"]
    )
    base = evo.build(founders.base.founder, founders)["weight"]
    target = base.clone()  # what all three were tuned for, at full strength
    for founder in founders.founders:
        target += evo.build(founder.founder, founders)["weight"] - base

    def fitness(weights: dict[str, torch.Tensor]) -> float:
        return -float((weights["weight"] - target).square().mean())

    algorithm = evo.make({"name": "recipe_search", "population": 8}, founders, seed=1)
    best = None
    for _ in range(30):
        scored = [
            Scored(candidate, fitness(evo.build(candidate.recipe, founders)))
            for candidate in algorithm.ask()
        ]
        algorithm.tell(scored)
        best = max([*scored, *([best] if best else [])], key=lambda s: s.fitness)
        if algorithm.generation == 0:
            print(f"best founder: {best.fitness:.4f}")
    print(f"best of {algorithm.generation} generations: {best.fitness:.4f}")
    save_file(evo.build(best.candidate.recipe, founders), folder / "best.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo/own_loop"))
