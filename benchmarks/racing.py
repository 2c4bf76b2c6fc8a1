"""Racing against none: examples used, and what the winner scores on test. 5 seeds, in turns.

python benchmarks/racing.py [--zoo demo/zoo] [--seeds 0 1 2 3 4] [--evaluations 300] [--tasks alien trio]
    [--algorithms recipe_search genome_plus]

``examples`` are those of dev that the search used, ``regret`` is the test score of the run without racing
less that with it, of one seed (above 0: racing lost something); its interval is Student's, 95 %.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any

from quality import FOUNDERS, fingerprint
from results import save
from runner import Row, Rows, alternate, summary

import evo
from cluster.founders.checkpoints import load_founders
from evo.cli.zoo import build_zoo
from evo.run.pool import start_pool
from evo.run.setup import load_tasks

STUDENT = {3: 4.303, 4: 3.182, 5: 2.776}  # two-sided 95 %, by number of seeds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--zoo", type=Path, default=Path("demo/zoo"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument("--tasks", nargs="+", default=["alien", "trio"])
    parser.add_argument("--algorithms", nargs="+", default=["recipe_search", "genome_plus"])
    options = parser.parse_args()
    build_zoo(options.zoo, seed=0)
    done: dict[str, Any] = {}
    for algorithm in options.algorithms:
        for task in options.tasks:
            config = evo.RunConfig(
                base=options.zoo / "base",
                founders={name: options.zoo / name for name in FOUNDERS},
                tasks=[evo.TaskConfig(name=task, files=options.zoo / "tasks" / task)],
                algorithm={"name": algorithm},
                budget=evo.BudgetConfig(evaluations=options.evaluations),
                pool={"kind": "local"},
                racing=True,
            )
            founders = load_founders(config.base, config.founders)
            setting = {"zoo": fingerprint(founders), "evaluations": options.evaluations}
            pool = start_pool(config, founders, load_tasks(config.tasks))

            def keep(
                rows: Rows, name: str = f"{algorithm}, {task}", setting: Row = setting
            ) -> None:
                done[name] = compared(rows)
                data = {**setting, "runs": done}
                save("racing", data, headline(data))

            whole = config.model_copy(update={"racing": None})
            candidates: dict[str, Callable[[], Row]] = {
                "racing": Seeds(config, pool, options.seeds),
                "no racing": Seeds(whole, pool, options.seeds),
            }
            alternate(candidates, len(options.seeds), keep)
            pool.close()


def headline(data: dict[str, Any]) -> str:
    found = [
        f"{name}: {run['examples_share']:.0%} of the examples, test {run['test_mean']['racing']:.3f} "
        f"(without racing {run['test_mean']['no racing']:.3f})"
        for name, run in data["runs"].items()
    ]
    return "; ".join(found)


class Seeds:
    """A run with the next of the seeds, each time that it is called."""

    def __init__(self, config: evo.RunConfig, pool: Any, seeds: list[int]) -> None:
        self._runs = iter([partial(one_run, config, pool, seed) for seed in seeds])

    def __call__(self) -> Row:
        return next(self._runs)()


def one_run(config: evo.RunConfig, pool: Any, seed: int) -> Row:
    config = config.model_copy(update={"seed": seed})
    with (
        tempfile.TemporaryDirectory() as folder,
        evo.Evolution(config, Path(folder) / "run", pool=pool) as run,
    ):
        for _ in run:
            pass
        found = run.finish()
    return {
        "examples": found.examples,
        "dev": found.winner.dev,
        "test": found.winner.test,
        "seconds": found.time.search_s,
    }


def compared(rows: Rows) -> dict[str, Any]:
    """Both ways' medians and spread, each seed's numbers, and what racing saved and lost."""
    pairs = list(zip(rows["racing"], rows["no racing"], strict=True))
    regret = [whole["test"] - raced["test"] for raced, whole in pairs]
    error = statistics.stdev(regret) / sqrt(len(regret)) if len(regret) > 1 else None
    t = STUDENT.get(len(regret))
    return {
        "examples_share": sum(r["examples"] for r, _ in pairs)
        / sum(w["examples"] for _, w in pairs),
        "test_mean": {name: statistics.mean(r["test"] for r in own) for name, own in rows.items()},
        "regret": statistics.mean(regret),
        "regret_half_interval": error * t if error is not None and t else None,
        "summary": {name: summary(own) for name, own in rows.items()},
        "seeds": rows,
    }


if __name__ == "__main__":
    main()
