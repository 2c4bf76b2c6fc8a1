"""Plain torch modules evolve too: two digit classifiers, each trained on half of the classes.

Neither knows the other's digits; the child has to. The setting is M2N2's (arXiv 2508.16204), on the test set of
Optical Recognition of Handwritten Digits (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, CC BY 4.0),
in digits.npz: images of 8x8 pixels from 0 to 16, and their labels. Run: python examples/digits.py [OUT]
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import evo

SPLITS = {
    "train": slice(0, 900),
    "dev": slice(900, 1200),
    "select": slice(1200, 1500),
    "test": slice(1500, None),
}


def build() -> torch.nn.Module:
    """64 pixels in, 10 digits out."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))


def examples(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (examples, 64) in [0, 1] and labels (examples,), shuffled once."""
    data = np.load(Path(__file__).with_name("digits.npz"))
    order = np.random.default_rng(0).permutation(len(data["labels"]))[SPLITS[split]]
    images, labels = data["images"][order] / 16, data["labels"][order].astype(np.int64)
    return torch.tensor(images, dtype=torch.float32), torch.tensor(labels)


def score(module: torch.nn.Module, split: str) -> list[float]:
    """1 for each digit read right, 0 for each read wrong."""
    images, labels = examples(split)
    return (module(images).argmax(-1) == labels).float().tolist()


def train(module: torch.nn.Module, classes: range, steps: int) -> torch.nn.Module:
    images, labels = examples("train")
    known = torch.isin(labels, torch.tensor(list(classes)))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(module(images[known]), labels[known])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    # One ancestor that has seen all digits a little; each founder then specialises on one half.
    base = train(build(), range(10), steps=3).state_dict()
    save_file(base, out / "base.safetensors")
    for name, classes in {"low": range(5), "high": range(5, 10)}.items():
        module = build()
        module.load_state_dict(base)
        save_file(train(module, classes, steps=60).state_dict(), out / f"{name}.safetensors")
    config = evo.RunConfig(
        base=out / "base.safetensors",
        founders=[out / "low.safetensors", out / "high.safetensors"],
        tasks=[
            evo.TaskConfig(
                name="digits", metric="digits:score", data={s: s for s in ("dev", "select", "test")}
            )
        ],
        engine=evo.EngineConfig(kind="module", build="digits:build"),
        algorithm="recipe_search",
        budget=evo.BudgetConfig(evaluations=200),
        pool=evo.PoolConfig(kind="local"),
    )
    with evo.Evolution(config, run_dir=out / "run") as run:
        for generation in run:
            print(f"{generation.number:3d} best {generation.best.fitness:.3f}")
        summary = run.finish()
        run.save("best", out / "best")
    for row in summary.rows:
        print(f"{row.name:20s} {row.test:.3f} ± {row.test_se:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("demo/digits"))
