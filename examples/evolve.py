"""The loop in your own hands: evolve three zoo experts, watch, look at the lineage, save the best.

Build the zoo first (`evo zoo build demo/zoo`), then: python examples/evolve.py [ZOO] [OUT]
"""

import sys
from pathlib import Path

import evo


def main(zoo: Path, out: Path) -> None:
    config = evo.RunConfig(
        base=zoo / "base",
        founders={name: zoo / name for name in ("swap", "pmax", "alpha1")},
        tasks=[evo.TaskConfig(name="alien", files=zoo / "tasks" / "alien")],
        algorithm={"name": "genome", "genes": "coefficients", "population": 8},
        budget=evo.BudgetConfig(evaluations=80, patience=10),
        pool=evo.PoolConfig(kind="local"),
        seed=1,
    )
    with evo.Evolution(config, run_dir=out / "run") as run:
        for generation in run:
            best = generation.best
            print(f"{generation.number:3d} {best.fitness:.3f} {best.candidate.operator}")
        summary = run.finish()
        run.save("best", out / "best")

        individuals = run.lineage.individuals.to_pandas()
        print(individuals.groupby("operator").size().to_string())
        ancestors = run.lineage.ancestors("best", ["operator", "description"]).to_pandas()
        print(ancestors.to_string(index=False))

    winner = summary.winner
    founders = [b for b in summary.baselines if b.kind == "founder"]
    print(f"winner on test: {winner.test:.3f} ± {winner.test_se:.3f}")
    print(f"best founder on test: {max(b.test for b in founders):.3f}")


if __name__ == "__main__":
    arguments = [Path(a) for a in sys.argv[1:]] + [Path("demo/zoo"), Path("demo/evolve")][
        len(sys.argv) - 1 :
    ]
    main(*arguments)
