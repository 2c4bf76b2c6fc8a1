"""One pool for several runs: the host starts once, and two seeds are searched on it.

Build the zoo first (`evo zoo build demo/zoo`), then: python examples/shared_pool.py [ZOO] [OUT]
"""

import sys
from pathlib import Path

import evo


def main(config: evo.RunConfig, out: Path) -> None:
    with evo.make_pool(config, out / "seed-1") as pool:
        for seed in (1, 2):
            seeded = config.model_copy(update={"seed": seed})
            with evo.Evolution(seeded, out / f"seed-{seed}", pool=pool) as run:
                best = max(generation.best.fitness for generation in run)
                run.finish()
            print(f"seed {seed}: best fitness on dev {best:.3f}")


if __name__ == "__main__":
    zoo = Path(sys.argv[1] if len(sys.argv) > 1 else "demo/zoo")
    out = Path(sys.argv[2] if len(sys.argv) > 2 else "demo/shared-pool")
    main(
        evo.RunConfig(
            base=zoo / "base",
            founders={name: zoo / name for name in ("swap", "pmax", "alpha1")},
            tasks=[evo.TaskConfig(name="alien", files=zoo / "tasks" / "alien")],
            algorithm={"name": "recipe_search"},
            budget=evo.BudgetConfig(evaluations=80),
        ),
        out,
    )
