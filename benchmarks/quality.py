"""ZOO's table out of the product: every algorithm, 300 evaluations, 5 seeds, two tasks, test scores.

python benchmarks/quality.py [--zoo demo/zoo] [--seeds 5] [--evaluations 300] [--only METHOD ...]

Runs alternate over methods within each seed. ``std`` is over seeds (sample standard deviation);
``test_se`` is the mean standard error of one run's test score over its 1,000 examples.
"""

import argparse
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from results import save

import evo
from cluster.founders import load_founders
from evo.commands import build_zoo
from evo.setup import load_tasks, make_pool

FOUNDERS = ("rev", "sort", "desc", "swap", "even", "pmax", "pmin", "succpred", "alpha1", "alpha2")
METHODS: dict[str, dict[str, Any]] = {
    "random_search": {"name": "random_search"},
    "genome": {"name": "genome"},
    "genome_plus": {"name": "genome_plus"},
    "genome, coefficients": {"name": "genome", "genes": "coefficients"},
    "genome_plus, coefficients": {"name": "genome_plus", "genes": "coefficients"},
    "recipe_search": {"name": "recipe_search"},
}
# What an experiment outside this project measured before it was written: mean and std of 3 seeds.
EXPECTED = {
    "alien": {
        "best founder": 0.377,
        "uniform average": 0.0,
        "random_search": 0.506,
        "genome": 0.379,
        "genome_plus": 0.368,
        "genome, coefficients": 0.608,
        "recipe_search": 0.750,
    },
    "trio": {
        "best founder": 0.687,
        "uniform average": 0.418,
        "random_search": 0.710,
        "genome": 0.692,
        "genome_plus": 0.703,
        "recipe_search": 0.800,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", type=Path, default=Path("demo/zoo"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument("--tasks", nargs="+", default=["alien", "trio"])
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--name", default="quality")
    options = parser.parse_args()
    build_zoo(options.zoo, seed=0)
    runs: list[dict[str, Any]] = []
    for task in options.tasks:
        config = evo.RunConfig(
            base=options.zoo / "base",
            founders={name: options.zoo / name for name in FOUNDERS},
            tasks=[evo.TaskConfig(name=task, files=options.zoo / "tasks" / task)],
            budget=evo.BudgetConfig(evaluations=options.evaluations),
        )
        pool = make_pool(
            config, load_founders(config.base, config.founders), load_tasks(config.tasks)
        )
        for seed in range(options.seeds):
            for method in options.only:
                chosen = evo.RunConfig.model_validate(
                    {**config.model_dump(), "algorithm": METHODS[method], "seed": seed}
                )
                runs.append({"task": task, "method": method, **one_run(chosen, pool)})
                report(runs, options)
        pool.close()
    print(save(options.name, report(runs, options)))


def one_run(config: evo.RunConfig, pool: Any) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory() as folder,
        evo.Evolution(config, Path(folder) / "run", pool=pool) as run,
    ):
        for _ in run:
            pass
        summary = run.finish()
    ensemble = summary["ensemble"] or {}
    return {
        "seed": config.seed,
        "evaluations": summary["evaluations"],
        **{key: summary["winner"][key] for key in ("dev", "select", "test", "test_se")},
        "ensemble_test": ensemble.get("test"),
        "seconds": summary["time"]["search_s"],
        "baselines": {
            b["name"]: {"kind": b["kind"], "test": b["test"], "test_se": b["test_se"]}
            for b in summary["baselines"]
        },
    }


def report(runs: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Aggregate, print the newest line, and give what is saved."""
    scores: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        scores[run["task"], run["method"]].append(run)
    table = []
    for (task, method), rows in scores.items():
        tests = [r["test"] for r in rows]
        table.append(
            {
                "task": task,
                "method": method,
                "seeds": len(rows),
                "test_mean": statistics.mean(tests),
                "test_std": statistics.stdev(tests) if len(tests) > 1 else None,
                "test_se": statistics.mean(r["test_se"] for r in rows),
                "expected": EXPECTED.get(task, {}).get(method),
            }
        )
    for task in {r["task"] for r in runs}:
        baselines = next(r["baselines"] for r in runs if r["task"] == task)
        founders = {n: b for n, b in baselines.items() if b["kind"] == "founder"}
        best = max(founders, key=lambda n: founders[n]["test"])
        for label, name in (
            ("best founder", best),
            ("uniform average", "uniform average"),
            ("founders' ensemble", "founders' ensemble"),
        ):
            table.append(
                {
                    "task": task,
                    "method": label,
                    "which": name,
                    "test_mean": baselines[name]["test"],
                    "test_se": baselines[name]["test_se"],
                    "expected": EXPECTED.get(task, {}).get(label),
                }
            )
    last = runs[-1]
    print(
        f"{last['task']:6s} {last['method']:26s} seed {last['seed']}  dev {last['dev']:.3f}  test {last['test']:.3f} ± {last['test_se']:.3f}  {last['seconds']:.1f} s",
        flush=True,
    )
    return {"evaluations": options.evaluations, "table": table, "runs": runs}


if __name__ == "__main__":
    main()
