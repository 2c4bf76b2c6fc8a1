"""Every algorithm and the static merges, 300 evaluations, 5 seeds, two tasks, test scores.

python benchmarks/quality.py [--zoo demo/zoo] [--seeds 0 1 2 3 4] [--evaluations 300] [--tasks alien trio]
    [--only METHOD ...] [--again] [--pool local|ray]

A cell is one task, method and seed. Each is added to the results file as soon as it is done, and cells
that stand there are not run again, so the benchmark can be stopped, or run in pieces side by side.
Cells of another zoo, budget or algorithm settings are dropped (training differs in its last bits
between kinds of processors, so a zoo built elsewhere is another zoo).

``test_std`` is over seeds (sample standard deviation); ``test_se`` is the mean standard error of one
run's test score over its 1,000 examples. All methods choose by dev, then by select among their best five.
"""

import argparse
import fcntl
import hashlib
import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from results import FOLDER, save

import evo
from cluster.founders.checkpoints import FounderSet, load_founders
from evo.algorithms import Scored, Start
from evo.cli.zoo import build_zoo
from evo.final.scorer import FinalScorer
from evo.final.selection import SelectionPolicy
from evo.final.static_merges import static_grid
from evo.lineage.storage.writer import LineageWriter
from evo.run.pool import start_pool
from evo.run.setup import load_tasks
from evo.search.evaluator import Evaluator
from evo.search.objective import Objective
from fitness.splits import DEV

FOUNDERS = ("rev", "sort", "desc", "swap", "even", "pmax", "pmin", "succpred", "alpha1", "alpha2")
SEVERAL = ["task_arithmetic", "ties", "dare_ties"]
SEARCHES: dict[str, dict[str, Any]] = {
    "random_search": {"name": "random_search"},
    "genome": {"name": "genome"},
    "genome_plus": {"name": "genome_plus"},
    "genome, coefficients": {"name": "genome", "genes": "coefficients"},
    "genome_plus, coefficients": {"name": "genome_plus", "genes": "coefficients"},
    "recipe_search": {"name": "recipe_search"},
    "recipe_search, ties": {"name": "recipe_search", "method": "ties"},
    "recipe_search, dare_ties": {"name": "recipe_search", "method": "dare_ties"},
    "recipe_search, several methods": {"name": "recipe_search", "methods": SEVERAL},
    "recipe_search, then 2 layer groups": {"name": "recipe_search", "layer_groups": 2},
    "recipe_search, 2 layer groups": {
        "name": "recipe_search",
        "layer_groups": 2,
        "first_stage": 0,
    },
    "cross_entropy": {"name": "cross_entropy"},
    "differential_evolution": {"name": "differential_evolution"},
    "lorahub": {"name": "lorahub"},
    "random paths": {"name": "dataflow", "search": "random"},
    "dataflow, flat": {"name": "dataflow", "search": "flat"},
    "dataflow": {"name": "dataflow"},
    "path_ga": {"name": "path_ga"},
    "joint": {"name": "joint"},
    "sequence": {"name": "sequence", "evaluations": [200]},
}
STATIC = {f"{method}, tuned": method for method in ("task_arithmetic", "ties", "dare_ties")}
METHODS = (*SEARCHES, *STATIC)
# What an experiment outside this project measured before it was written: mean of 3 seeds, another zoo.
EXPECTED = {
    "alien": {
        "best founder": 0.377,
        "uniform average": 0.0,
        "random_search": 0.506,
        "genome": 0.379,
        "genome_plus": 0.368,
        "genome, coefficients": 0.608,
        "recipe_search": 0.750,
        "task_arithmetic, tuned": 0.011,
        "ties, tuned": 0.423,
        "dare_ties, tuned": 0.063,
    },
    "trio": {
        "best founder": 0.687,
        "uniform average": 0.418,
        "random_search": 0.710,
        "genome": 0.692,
        "genome_plus": 0.703,
        "recipe_search": 0.800,
        "task_arithmetic, tuned": 0.486,
        "ties, tuned": 0.447,
        "dare_ties, tuned": 0.467,
    },
}


def headline(data: dict[str, Any]) -> str:
    told = []
    for task in dict.fromkeys(row["task"] for row in data["table"]):
        rows = {r["method"]: r for r in data["table"] if r["task"] == task}
        best = max(rows.values(), key=lambda row: row["test_mean"])
        told.append(f"{task}: {best['method']} {best['test_mean']:.3f}")
    return f"best on test, {data['evaluations']} evaluations: {'; '.join(told)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--zoo", type=Path, default=Path("demo/zoo"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument("--tasks", nargs="+", default=["alien", "trio"])
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS, metavar="METHOD")
    parser.add_argument("--again", action="store_true", help="run cells that are there already")
    parser.add_argument("--pool", choices=("local", "ray"), default="ray")
    parser.add_argument("--name", default="quality", help="of the file under results/")
    options = parser.parse_args()
    build_zoo(options.zoo, seed=0)
    for task in options.tasks:
        config = evo.RunConfig(
            base=options.zoo / "base",
            founders={name: options.zoo / name for name in FOUNDERS},
            tasks=[evo.TaskConfig(name=task, files=options.zoo / "tasks" / task)],
            budget=evo.BudgetConfig(evaluations=options.evaluations),
            pool={"kind": options.pool},
        )
        founders = load_founders(config.base, config.founders)
        setting = {"zoo": fingerprint(founders), "evaluations": options.evaluations}
        pool = None
        for seed in options.seeds:  # methods alternate within each seed
            for method in options.only:
                with results_file(options.name, setting) as runs:
                    there = any(key_of(r) == (task, method, seed) for r in runs)
                if there and not options.again:
                    continue
                pool = pool or start_pool(config, founders, load_tasks(config.tasks))
                run = one_run(config, founders, pool, method, seed)
                cell = {"task": task, "method": method, "settings": SEARCHES.get(method), **run}
                with results_file(options.name, setting) as runs:
                    runs[:] = [r for r in runs if key_of(r) != key_of(cell)] + [cell]
                print(line(cell), flush=True)
        if pool is not None:
            pool.close()
    with results_file(options.name, setting) as runs:
        for row in table(runs):
            print(row)


def fingerprint(founders: FounderSet) -> str:
    """Which zoo: a digest over all its tensors."""
    digests = "".join(f.founder.digest for f in founders.all_files())
    return hashlib.sha256(digests.encode()).hexdigest()[:12]


def key_of(run: dict[str, Any]) -> tuple[str, str, int]:
    return run["task"], run["method"], run["seed"]


@contextmanager
def results_file(name: str, setting: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """The runs in the results file that are of this setting; what is changed is written back."""
    path = FOLDER / f"{name}.json"
    with (Path(tempfile.gettempdir()) / f"evo-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        data = json.loads(path.read_text()) if path.is_file() else {}
        same = all(data.get(key) == value for key, value in setting.items())
        kept = [
            run
            for run in (data.get("runs", []) if same else [])
            if run["settings"] == SEARCHES.get(run["method"]) and run["method"] in METHODS
        ]
        runs = list(kept)
        yield runs
        if runs != kept:
            order = {m: i for i, m in enumerate(METHODS)}
            runs.sort(key=lambda r: (r["task"], order[r["method"]], r["seed"]))
            data = {**setting, "table": table(runs), "runs": runs}
            save(name, data, headline(data))


def one_run(
    config: evo.RunConfig, founders: FounderSet, pool: Any, method: str, seed: int
) -> dict[str, Any]:
    if method in STATIC:
        return static_run(config, founders, pool, STATIC[method], seed)
    chosen = evo.RunConfig.model_validate(
        {**config.model_dump(), "algorithm": SEARCHES[method], "seed": seed}
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        evo.Evolution(chosen, Path(folder) / "run", pool=pool) as run,
    ):
        for _ in run:
            pass
        summary = run.finish()
    return {
        "seed": seed,
        "evaluations": summary.evaluations,
        **{key: getattr(summary.winner, key) for key in ("dev", "select", "test", "test_se")},
        "ensemble_test": summary.ensemble.test if summary.ensemble else None,
        "seconds": summary.time.search_s,
        "baselines": {
            b.name: {"kind": b.kind, "test": b.test, "test_se": b.test_se}
            for b in summary.baselines
        },
    }


def static_run(
    config: evo.RunConfig, founders: FounderSet, pool: Any, method: str, seed: int
) -> dict[str, Any]:
    """A merge of all founders with its scale (and density) tuned on dev; seeds draw DARE's masks."""
    began = perf_counter()
    start = Start(
        tuple(f.founder for f in founders.founders), founders.base.founder, seed, founders.layers
    )
    evaluator = Evaluator(pool, Objective(load_tasks(config.tasks)))
    grid = static_grid(method, start, config.budget.evaluations)
    with tempfile.TemporaryDirectory() as folder:
        scorer = FinalScorer(evaluator, LineageWriter(Path(folder) / "lineage"), 0)
        fitness = scorer.score(grid, DEV)
        scored = [Scored(c, f.fitness) for c, f in zip(grid, fitness, strict=True)]
        best = scorer.choose(SelectionPolicy(config.finalists), scored, method)[0]
        row = asdict(scorer.row(method, "static", best.candidate, best.fitness))
    return {
        "seed": seed,
        "evaluations": len(grid),
        **{key: row[key] for key in ("dev", "select", "test", "test_se")},
        "ensemble_test": None,
        "seconds": perf_counter() - began,
        "baselines": {},
    }


def table(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each task and method, and for what every run is compared with."""
    rows = []
    for task, method in dict.fromkeys((r["task"], r["method"]) for r in runs):
        own = [r for r in runs if (r["task"], r["method"]) == (task, method)]
        tests = [r["test"] for r in own]
        rows.append(
            {
                "task": task,
                "method": method,
                "seeds": len(own),
                "evaluations": max(r["evaluations"] for r in own),
                "test_mean": statistics.mean(tests),
                "test_std": statistics.stdev(tests) if len(tests) > 1 else None,
                "test_se": statistics.mean(r["test_se"] for r in own),
                "expected": EXPECTED.get(task, {}).get(method),
            }
        )
    for task in dict.fromkeys(r["task"] for r in runs):
        found = next((r["baselines"] for r in runs if r["task"] == task and r["baselines"]), {})
        names = [n for n, b in found.items() if b["kind"] == "founder"]
        if not names:
            continue
        best = max(names, key=lambda n: found[n]["test"])
        for label, name in (
            ("best founder", best),
            ("uniform average", "uniform average"),
            ("founders' ensemble", "founders' ensemble"),
        ):
            rows.append(
                {
                    "task": task,
                    "method": label,
                    "which": name,
                    "test_mean": found[name]["test"],
                    "test_se": found[name]["test_se"],
                    "expected": EXPECTED.get(task, {}).get(label),
                }
            )
    return rows


def line(run: dict[str, Any]) -> str:
    return (
        f"{run['task']:6s} {run['method']:34s} seed {run['seed']}  dev {run['dev']:.3f}  "
        f"test {run['test']:.3f} ± {run['test_se']:.3f}  {run['seconds']:.1f} s"
    )


if __name__ == "__main__":
    main()
