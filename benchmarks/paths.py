"""Data-flow paths: how exact their export is, for every architecture, and what running one costs.

python benchmarks/paths.py [--zoo demo/zoo] [--repeats 5]

1. For each architecture a path with repeats, scales and two owners runs in the path engine, and is
   exported, scales folded away. Plain transformers loads the folder: largest difference of logits, and how
   many of 50 greedy generations are the same.
2. One evaluation of a path against one of a plain merged model of the same length, alternating, on the
   demo zoo: build and model seconds, medians, and their ratio.
"""

import argparse
import random
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import transformers
from results import save

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from path_models import CONFIGS, WINDING, A, B, pair

import evo
from cluster.founders.checkpoints import load_founders
from cluster.host.model_host import ModelHost
from cluster.jobs import EngineSpec, HostSpec, Job, Query
from evo.cli.zoo import build_zoo
from evo.export.checkpoint import export
from evo.run.setup import load_tasks
from fitness.engines.hf.paths import PathModel
from operators.recipe import Founder, Recipe, Route, Step, linear

PROMPTS = 50
FOUNDERS = ("rev", "sort", "desc", "swap", "even", "pmax", "pmin", "succpred", "alpha1", "alpha2")


def headline(data: dict[str, Any]) -> str:
    folded = [row for row in data["exactness"] if row["folds"]]
    worst = max(row["largest_difference"] / row["largest_logit"] for row in folded)
    return (
        f"{len(folded)} architectures fold, logits within {worst:.1e} relative; a path's forward pass "
        f"takes {data['overhead']['overhead']['model_s']:+.1%} against a plain model's"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", type=Path, default=Path("demo/zoo"))
    parser.add_argument("--repeats", type=int, default=5, help="of the timings")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    rows = [exactness(name) for name in CONFIGS]
    for row in rows:
        print(row, flush=True)
    cost = overhead(options.zoo, options.repeats)
    print(cost)
    data = {"exactness": rows, "overhead": cost}
    save("paths", data, headline(data))


def exactness(name: str) -> dict[str, Any]:
    """The path engine against its export, in plain transformers."""
    models = pair(name)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for founder, model in models.models.items():
            model.save_pretrained(root / founder.name)
        files = load_founders(root / "a", {"a": root / "a", "b": root / "b"})
        by_name = {f.founder.name: f.founder for f in files.founders}
        own = {A: by_name["a"], B: by_name["b"]}
        steps = tuple(Step(own[s.recipe], s.layer, s.scale) for s in WINDING.steps)
        route = Route(own[A], steps, own[B])
        export(route, files, root / "out")
        plain: Any = transformers.AutoModelForCausalLM.from_pretrained(root / "out").eval()
    path = models.lay(WINDING)
    shell = PathModel(models.models[A], path.layers, "cpu")
    shell.install(path)
    ids = torch.randint(3, 64, (PROMPTS, 20), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = shell.model(ids).logits, plain(ids).logits
        texts = [_greedy(m, ids) for m in (shell.model, plain)]
    difference, largest = float((ours - theirs).abs().max()), float(ours.abs().max())
    return {
        "architecture": name,
        "folds": difference < 1e-4 * largest,
        "largest_logit": largest,
        "largest_difference": difference,
        "prompts": PROMPTS,
        "equal_generations": int((texts[0] == texts[1]).all(dim=1).sum()),
    }


def _greedy(model: Any, ids: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=20,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return made


def overhead(zoo: Path, repeats: int) -> dict[str, Any]:
    """Seconds of one evaluation: a path of four new steps and scales, and a merge of four layers."""
    build_zoo(zoo, seed=0)
    files = load_founders(zoo / "base", {name: zoo / name for name in FOUNDERS})
    config = evo.TaskConfig(name="alien", files=zoo / "tasks" / "alien")
    config = evo.RunConfig(
        base=zoo / "base", founders={n: zoo / n for n in FOUNDERS}, tasks=[config]
    )
    task = load_tasks(config.tasks)[0].task
    query = Query("alien", "dev")
    host = ModelHost(
        HostSpec(files.base, files.founders, EngineSpec(), {query: tuple(task.requests("dev"))})
    )
    founders = [f.founder for f in files.founders]
    rng = random.Random(0)

    def path() -> Recipe:
        steps = [
            Step(rng.choice(founders), rng.randrange(4), rng.uniform(0.8, 1.25)) for _ in range(4)
        ]
        return Route(founders[0], tuple(steps), founders[0])

    def merged() -> Recipe:
        chosen: list[Founder] = rng.sample(founders, 3)
        return linear([(f, rng.uniform(0.1, 0.6)) for f in chosen])

    times: dict[str, list[tuple[float, float]]] = {"path": [], "merged": []}
    kinds = {"path": path, "merged": merged}
    for _ in range(3 + 20 * repeats):
        for kind, make in kinds.items():
            began = perf_counter()
            answer = host.run(Job(make(), (query,)))
            total = perf_counter() - began
            if answer.error:
                raise RuntimeError(answer.error)
            times[kind].append((answer.timing.model_s, total))
    medians = {
        kind: {
            "model_s": statistics.median(t[0] for t in seen[3:]),
            "total_s": statistics.median(t[1] for t in seen[3:]),
        }
        for kind, seen in times.items()
    }
    ratio = {
        key: medians["path"][key] / medians["merged"][key] - 1.0 for key in ("model_s", "total_s")
    }
    shells = []  # once for each new length, or order of kinds of layers
    for length in range(5, 9):
        steps = tuple(Step(founders[0], i % 4) for i in range(length))
        build_s = host.run(Job(Route(founders[0], steps, founders[0]), (query,))).timing.build_s
        shells.append({"steps": length, "build_s": build_s})
    return {
        "evaluations_each": 20 * repeats,
        **medians,
        "overhead": ratio,
        "first_of_its_length": shells,
    }


if __name__ == "__main__":
    main()
