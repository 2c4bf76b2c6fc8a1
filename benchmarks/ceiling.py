"""How much is there to find on a task? What no search of 300 evaluations can be expected to beat.

python benchmarks/ceiling.py [--zoo demo/zoo] [--task alien] [--only grid search gradient]

- grid: the three founders that alien is made of (alpha1, swap, pmax), 60 combinations of weights.
- search: recipe_search with ten times the budget, with one weight a founder and with more genes.
- gradient: the same genes fitted by gradient (Adam on the cross-entropy of the answers), which no
  search has: on dev, and, as a bound on what the founders hold at all, on test itself.
All choose on dev (the bound aside) and are scored on test.
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import FOLDER, save

import evo
from cluster.founders.checkpoints import FounderSet, load_founders, map_founders
from evo.algorithms import Start
from evo.algorithms.gene_space import GeneSettings, gene_space
from evo.cli.zoo import build_zoo
from evo.run.pool import start_pool
from evo.run.setup import load_tasks
from evo.search.evaluator import Evaluator
from evo.search.objective import Objective
from operators.recipe.coefficients import value_at

PARTS = ("alpha1", "swap", "pmax")
FOUNDERS = (*PARTS, "rev", "sort", "desc", "even", "pmin", "succpred", "alpha2")
GRID = ((0.8, 1.0, 1.3), (0.5, 0.75, 1.0, 1.25), (0.25, 0.5, 0.75, 1.0, 1.25))
WIDE = (-3.0, 3.0)
GENES: dict[str, dict[str, Any]] = {
    "one weight a founder": {},
    "2 layer groups": {"layer_groups": 2},
    "attention, mlp, rest": {"filters": ("self_attn", "mlp")},
    "4 layer groups x attention, mlp, rest": {"layer_groups": 4, "filters": ("self_attn", "mlp")},
}
EVALUATIONS = 3000


def headline(data: dict[str, Any]) -> str:
    honest = [r for r in data["rows"] if r.get("fitted on") != "test"]
    best = max(honest, key=lambda row: row["test"])
    what = ", ".join(filter(None, (best["kind"], best.get("genes") and str(best["genes"]))))
    return f"{best['task']}: the best of {len(honest)} ways has {best['test']:.3f} on test ({what})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--zoo", type=Path, default=Path("demo/zoo"))
    parser.add_argument("--task", default="alien")
    parser.add_argument("--only", nargs="+", choices=("grid", "search", "gradient"))
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS)
    options = parser.parse_args()
    build_zoo(options.zoo, seed=0)
    config = evo.RunConfig(
        base=options.zoo / "base",
        founders={name: options.zoo / name for name in FOUNDERS},
        tasks=[evo.TaskConfig(name=options.task, files=options.zoo / "tasks" / options.task)],
        budget=evo.BudgetConfig(evaluations=options.evaluations),
        pool={"kind": "local"},
    )
    founders, tasks = load_founders(config.base, config.founders), load_tasks(config.tasks)
    pool = start_pool(config, founders, tasks)
    evaluator = Evaluator(pool, Objective(tasks))
    path = FOLDER / "ceiling.json"
    kept = json.loads(path.read_text()).get("rows", []) if path.is_file() else []
    wanted = options.only or ("grid", "search", "gradient")
    rows = [r for r in kept if r["task"] != options.task or r["kind"] not in wanted]
    kinds = {
        "grid": lambda: grid(founders, evaluator),
        "search": lambda: searches(config, pool),
        "gradient": lambda: gradients(founders, evaluator, options),
    }
    for kind in wanted:
        for row in kinds[kind]():
            rows.append({"task": options.task, "kind": kind, **row})
            print(rows[-1], flush=True)
            save("ceiling", {"rows": rows}, headline({"rows": rows}))
    pool.close()


def grid(founders: FounderSet, evaluator: Evaluator) -> Iterator[dict[str, Any]]:
    three = Start(tuple(f.founder for f in founders.founders[:3]), founders.base.founder, 0)
    space = gene_space(["task_arithmetic"], GeneSettings(), three)
    weights = [np.array(w) for w in itertools.product(*GRID)]
    recipes = [space.decode(w) for w in weights]
    dev = [evaluator.objective.score(r).fitness for r in evaluator.run(recipes, "dev")]
    best = int(np.argmax(dev))
    yield {
        "genes": dict(zip(PARTS, weights[best].tolist(), strict=True)),
        "evaluations": len(recipes),
        **scores(evaluator, recipes[best]),
    }


def searches(config: evo.RunConfig, pool: Any) -> Iterator[dict[str, Any]]:
    for name, changes in GENES.items():
        algorithm = {"name": "recipe_search", **changes}
        chosen = evo.RunConfig.model_validate({**config.model_dump(), "algorithm": algorithm})
        with (
            tempfile.TemporaryDirectory() as folder,
            evo.Evolution(chosen, Path(folder) / "run", pool=pool) as run,
        ):
            for _ in run:
                pass
            summary = run.finish()
        keys = ("dev", "select", "test", "test_se")
        yield {
            "genes": name,
            "evaluations": summary.evaluations,
            **{key: getattr(summary.winner, key) for key in keys},
        }


def gradients(
    founders: FounderSet, evaluator: Evaluator, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(options.zoo / "base").eval()
    tokenizer = AutoTokenizer.from_pretrained(options.zoo / "base")
    weights = map_founders(founders.all_files())
    base = {n: t.float() for n, t in weights[founders.base.founder].tensors.items()}
    order = [f.founder for f in founders.founders]
    deltas = {n: torch.stack([weights[f][n].float() - t for f in order]) for n, t in base.items()}
    start = Start(tuple(order), founders.base.founder, 0, founders.layers)
    for name, changes in GENES.items():
        settings = GeneSettings(bounds={"weight": WIDE}, **changes)
        space = gene_space(["task_arithmetic"], settings, start)
        columns = columns_of(space, tuple(base), founders.layers)
        for split in ("dev", "test"):
            ids, targets = answers(
                options.zoo / "tasks" / f"{options.task}.{split}.jsonl", tokenizer
            )
            x = torch.full((len(order), space.parts[0].columns), 1.0 / len(order))
            x.requires_grad_(True)
            adam = torch.optim.Adam([x], lr=0.03)
            for _ in range(150):
                made = {
                    n: t + torch.tensordot(x[:, columns[n]], deltas[n], 1) for n, t in base.items()
                }
                logits = torch.func.functional_call(model, made, (ids,)).logits[:, :-1]
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
                adam.zero_grad()
                loss.backward()
                adam.step()
            point = x.detach().double().numpy().reshape(-1)
            yield {
                "genes": name,
                "fitted on": split,
                **scores(evaluator, space.decode(point)),
            }


def columns_of(space: Any, tensors: tuple[str, ...], layers: int) -> dict[str, int]:
    """The column of the weights that holds for each tensor, read off weights that are all different."""
    width = space.parts[0].columns
    numbered = np.tile(np.arange(1, width + 1) / (width + 1), len(space.founders))
    terms = dict(space.decode(numbered).terms)
    weight = terms[space.founders[-1]]
    return {t: round(value_at(weight, t, layers) * (width + 1)) - 1 for t in tensors}


def answers(path: Path, tokenizer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, and as targets the next ones that belong to an answer (else −100)."""
    rows, kept = [], []
    for text in path.read_text().splitlines():
        row = json.loads(text)
        prompt = tokenizer(row["prompt"])["input_ids"]
        answer = tokenizer(row["answer"], add_special_tokens=False)["input_ids"]
        rows.append([*prompt, *answer, tokenizer.eos_token_id])
        kept.append(len(prompt))
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), tokenizer.pad_token_id)
    targets = torch.full((len(rows), length - 1), -100)
    for i, (row, start) in enumerate(zip(rows, kept, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        targets[i, start - 1 : len(row) - 1] = torch.tensor(row[start:])
    return ids, targets


def scores(evaluator: Evaluator, recipe: Any) -> dict[str, float]:
    measured = {
        s: evaluator.objective.score(evaluator.run([recipe], s)[0])
        for s in evo.config.schema.SPLITS
    }
    made = {split: m.fitness for split, m in measured.items()}
    return {**made, "test_se": measured["test"].standard_error}


if __name__ == "__main__":
    main()
