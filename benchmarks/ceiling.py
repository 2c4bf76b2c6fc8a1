"""How much is there to find on alien, with one weight per founder? A grid, and five times the budget.

python benchmarks/ceiling.py [--zoo demo/zoo]

The grid mixes the three founders that the task is made of (alpha1, swap, pmax); the search is
recipe_search with 1,500 evaluations. Both choose on dev and are scored on test.
"""

import argparse
import itertools
import tempfile
from pathlib import Path

import numpy as np
from results import save

import evo
from cluster.founders import load_founders
from evo.commands import build_zoo
from evo.evaluation import Evaluator
from evo.setup import load_tasks, make_pool
from operators.mutation import from_task_vectors

NAMES = ("alpha1", "swap", "pmax")
GRID = ((0.8, 1.0, 1.3), (0.5, 0.75, 1.0, 1.25), (0.25, 0.5, 0.75, 1.0, 1.25))
OTHERS = ("rev", "sort", "desc", "even", "pmin", "succpred", "alpha2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", type=Path, default=Path("demo/zoo"))
    zoo = parser.parse_args().zoo
    build_zoo(zoo, seed=0)
    config = evo.RunConfig(
        base=zoo / "base",
        founders={name: zoo / name for name in (*NAMES, *OTHERS)},
        tasks=[evo.TaskConfig(name="alien", files=zoo / "tasks" / "alien")],
        budget=evo.BudgetConfig(evaluations=1500),
    )
    files, tasks = load_founders(config.base, config.founders), load_tasks(config.tasks)
    pool = make_pool(config, files, tasks)
    evaluator = Evaluator(pool, tasks)
    three = [f.founder for f in files.founders[:3]]
    weights = list(itertools.product(*GRID))
    recipes = [from_task_vectors(three, files.base.founder, np.array(w)) for w in weights]
    dev = [evaluator.measure(r).fitness for r in evaluator.run(recipes, "dev")]
    best = int(np.argmax(dev))
    test = evaluator.measure(evaluator.run([recipes[best]], "test")[0])
    grid = {
        "weights": dict(zip(NAMES, weights[best], strict=True)),
        "evaluations": len(recipes),
        "dev": dev[best],
        "test": test.fitness,
        "test_se": test.standard_error,
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        evo.Evolution(config, Path(folder) / "run", pool=pool) as run,
    ):
        for _ in run:
            pass
        summary = run.finish()
    pool.close()
    search = {"evaluations": summary["evaluations"]} | {
        key: summary["winner"][key] for key in ("dev", "select", "test", "test_se")
    }
    print("grid of three", grid)
    print("recipe_search", search)
    print(save("ceiling", {"grid_of_three": grid, "recipe_search": search}))


if __name__ == "__main__":
    main()
