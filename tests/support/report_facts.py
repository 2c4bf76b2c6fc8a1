"""Facts of made-up runs for the report page: an ordinary one, one as large as facts get, one that is hostile."""

import math
import random
from typing import Any

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><!-- \u2028 {a|b} & '"
LONG = "a-very-long-name-without-any-place-to-break-it-" * 4


def ordinary() -> dict[str, Any]:
    """A genetic run over two tasks, whose winner is a path that repeats layers."""
    return _facts(
        founders=4, tasks=["add", "sort"], generations=12, members=6, layers=6, examples=30
    )


def large() -> dict[str, Any]:
    """As much of everything as facts may hold."""
    tasks = [f"task {k}" for k in range(10)]
    return _facts(
        founders=40, tasks=tasks, generations=400, members=3, layers=40, examples=200, family=150
    )


def hostile() -> dict[str, Any]:
    """Every text is markup that would run, were it taken for markup; and every name is long."""
    facts: dict[str, Any] = _replaced(ordinary())
    facts["run"] |= {"state": "finished"}
    return facts


def sparse() -> dict[str, Any]:
    """Whatever may be unknown is unknown."""
    facts = ordinary()
    facts["run"] |= {"state": "stopped", "seed": None, "budget": None, "started": None}
    facts["headline"] |= {"low": None, "high": None, "note": ""}
    facts["headline"]["winner"] |= {"description": ""}
    for row in facts["scores"]:
        row |= {"dev": None, "select": None, "test_se": None}
        for splits in row["tasks"].values():
            splits["test"] = {"score": None, "se": None}
    for key in ("best", "mean", "low", "high"):
        facts["fitness"][key][:3] = [None] * 3
    facts["fitness"]["baselines"] = []
    for node in facts["family"]["nodes"]:
        node |= {"fitness": None, "standard_error": None, "tasks": {}}
    facts["shares"] |= {"groups": ["all"], "share": facts["shares"]["share"][:1]}
    facts["path"] |= {"layers": None, "steps": [], "notes": []}
    for example in facts["changed"]["examples"]:
        example |= {"prompt": None, "expected": None, "was": None, "now": None, "was_value": 0.3}
    facts["diversity"] |= {"disagreement": [None] * 12}
    for row in facts["operators"]:
        row |= {"children": 0, "survival": 0.0, "best": None}
    facts["cost"] |= {"tokens": None, "busy_seconds": 0.0, "hosts": [], "splits": []}
    facts["problem"] = "lineage/items.parquet: damaged"
    return facts


_WORDS = {
    "state",
    "kind",
    "change",
    "split",
    "started",
    "updated",
    "time",
    "id",
    "parents",
    "spread",
}


def _replaced(value: Any, key: str = "") -> Any:
    if key in _WORDS:
        return value
    if isinstance(value, dict):
        return {
            (f"{HOSTILE}{LONG}{k}" if key == "tasks" and k in ("add", "sort") else k): _replaced(
                v, k
            )
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [_replaced(v, key) for v in value]
    return f"{HOSTILE}{LONG}{value}" if isinstance(value, str) else value


def nothing() -> dict[str, Any]:
    """A run that has only just begun."""
    return {
        "run": {
            "name": "young",
            "run_dir": "runs/young",
            "state": "running",
            "algorithm": "genetic",
            "seed": 0,
            "started": None,
            "updated": None,
            "generations": 0,
            "evaluations": 0,
            "budget": None,
            "failed": 0,
            "tasks": [],
            "splits": {},
        },
        "headline": None,
        "scores": [],
        "fitness": {
            key: []
            for key in (
                "generation",
                "evaluations",
                "seconds",
                "best",
                "mean",
                "low",
                "high",
                "baselines",
            )
        }
        | {"spread": ""},
        "family": {"nodes": [], "edges": [], "left_out": 0},
        "shares": None,
        "path": None,
        "changed": None,
        "diversity": None,
        "operators": [],
        "cost": {
            "evaluations": 0,
            "examples": 0,
            "tokens": None,
            "search_seconds": 0.0,
            "busy_seconds": 0.0,
            "build_seconds": 0.0,
            "model_seconds": 0.0,
            "score_seconds": 0.0,
            "startup_seconds": None,
            "final_seconds": None,
            "peak_memory_bytes": None,
            "hosts": [],
            "splits": [],
        },
        "events": {"rows": [], "left_out": 0, "counts": {}},
        "problem": None,
    }


def _facts(
    founders: int,
    tasks: list[str],
    generations: int,
    members: int,
    layers: int,
    examples: int,
    family: int = 40,
) -> dict[str, Any]:
    draw = random.Random(0)
    names = [f"founder {k}" for k in range(founders)]
    nodes, edges = _family(names, generations, members, family, tasks, draw)
    winner = nodes[-1]
    best = [0.4 + 0.4 * (1 - math.exp(-4 * g / generations)) for g in range(generations)]
    facts = nothing()
    facts["run"] |= {
        "name": "ordinary",
        "run_dir": "runs/it's ordinary",
        "state": "finished",
        "started": "2026-01-02T03:04:05+00:00",
        "updated": "2026-01-02T04:04:05+00:00",
        "generations": generations,
        "evaluations": generations * members,
        "budget": generations * members,
        "failed": 2,
        "tasks": [{"name": t, "metric": "exact_match", "weight": 1.0} for t in tasks],
        "splits": {"dev": 100, "select": 100, "test": 400},
    }
    facts["headline"] = {
        "split": "test",
        "winner": {
            "id": winner["id"],
            "name": winner["id"][:12],
            "description": winner["description"],
        },
        "winner_score": 0.74,
        "winner_se": 0.02,
        "founder": {"id": nodes[0]["id"], "name": names[0]},
        "founder_score": 0.61,
        "founder_se": 0.02,
        "difference": 0.13,
        "low": 0.083,
        "high": 0.177,
        "confidence": 0.95,
        "examples": 400,
        "note": "The best founder is the one with the best dev score.",
    }
    kinds = [("winner", "winner"), *((n, "founder") for n in names), ("uniform average", "average")]
    kinds += [("ties, tuned", "static"), ("random search", "random_search")]
    facts["scores"] = [
        _score(name, kind, 0.74 if kind == "winner" else draw.uniform(0.1, 0.61), tasks, draw)
        for name, kind in kinds
    ]
    facts["fitness"] |= {
        "generation": list(range(generations)),
        "evaluations": [members * (g + 1) for g in range(generations)],
        "seconds": [2.5 * (g + 1) for g in range(generations)],
        "best": best,
        "mean": [b - 0.15 for b in best],
        "low": [b - 0.25 for b in best],
        "high": [b - 0.05 for b in best],
        "spread": "10th to 90th percentile of the generation's new individuals",
        "baselines": [
            {"name": row["name"], "kind": row["kind"], "value": row["dev"], "curve": None}
            for row in facts["scores"][1:]
        ],
    }
    facts["family"] = {"nodes": nodes, "edges": edges, "left_out": 7}
    facts["shares"] = _shares(names, layers, draw)
    facts["path"] = _path(names[:3], layers)
    facts["changed"] = {
        "against": {"id": nodes[0]["id"], "name": names[0]},
        "split": "test",
        "fixed": examples - 8,
        "broken": 8,
        "both_right": 200,
        "both_wrong": 90,
        "left_out": 0,
        "examples": [
            {
                "task": tasks[k % len(tasks)],
                "example": k,
                "change": "broken" if k < 8 else "fixed",
                "was": None if k % 3 else f"answer {k}",
                "now": f"{k + 1}",
                "was_value": float(k < 8),
                "now_value": float(k >= 8),
                "prompt": f"What comes after {k}?",
                "expected": f"{k + 1}",
            }
            for k in range(examples)
        ],
    }
    facts["diversity"] = {
        "generation": list(range(generations)),
        "disagreement": [0.4 * math.exp(-g / generations) for g in range(generations)],
        "distinct": [1.0 - 0.3 * g / generations for g in range(generations)],
    }
    facts["operators"] = [
        {
            "operator": name,
            "children": 40,
            "failed": 1,
            "survived": 40 - 9 * k,
            "survival": (40 - 9 * k) / 40,
            "improved": 12 - 3 * k,
            "best": 0.7 - 0.02 * k,
        }
        for k, name in enumerate(("crossover", "mutation", "succession"))
    ]
    facts["cost"] |= {
        "evaluations": generations * members,
        "examples": 54321,
        "tokens": 9876543,
        "search_seconds": 3723.0,
        "busy_seconds": 7000.0,
        "build_seconds": 1000.0,
        "model_seconds": 5900.0,
        "score_seconds": 100.0,
        "startup_seconds": 12.0,
        "final_seconds": 60.0,
        "peak_memory_bytes": 3 * 2**30,
        "hosts": [
            {"host": f"host-{k}", "evaluations": 40, "seconds": 1700.0, "tokens": 10, "failed": k}
            for k in range(3)
        ],
        "splits": [{"split": "dev", "evaluations": 100, "seconds": 6000.0, "examples": 10000}],
    }
    facts["events"] = {
        "rows": [
            {
                "time": "2026-01-02T03:04:05+00:00",
                "generation": k,
                "kind": kind,
                "detail": f"host-{k}: {kind}",
            }
            for k, kind in enumerate(("start", "host ready", "host lost", "retry", "finish"))
        ],
        "left_out": 3,
        "counts": {"start": 1, "host ready": 1, "host lost": 1, "retry": 4, "finish": 1},
    }
    return facts


def _family(
    names: list[str],
    generations: int,
    members: int,
    most: int,
    tasks: list[str],
    draw: random.Random,
) -> tuple[list[dict[str, Any]], list[list[int]]]:
    def node(name: str, generation: int, lane: float, operator: str, parents: list[int]) -> Any:
        own = f"{draw.getrandbits(256):064x}"
        fitness = 0.3 + 0.4 * generation / generations
        return {
            "id": own,
            "name": name or own[:12],
            "generation": generation,
            "lane": lane,
            "operator": operator,
            "description": name or "0.5·founder 0 + -0.25·founder 1",
            "fitness": fitness,
            "standard_error": 0.03,
            "parents": [nodes[p]["id"] for p in parents],
            "tasks": dict.fromkeys(tasks, fitness),
        }

    nodes: list[dict[str, Any]] = []
    for k, name in enumerate(names):
        nodes.append(node(name, 0, (k + 0.5) / len(names), "founder", []))
    edges, before = [], list(range(len(nodes)))
    for generation in range(1, generations):
        width = 1 if generation == generations - 1 or len(nodes) >= most - 1 else members
        new = []
        for k in range(width):
            operator = ("crossover", "mutation", "succession")[(k + generation) % 3]
            parents = draw.sample(before, min(len(before), 1 if operator == "mutation" else 2))
            edges += [[p, len(nodes)] for p in parents]
            new.append(len(nodes))
            nodes.append(node("", generation, (k + 0.5) / width, operator, parents))
        before = new
        if len(nodes) >= most:
            break
    return nodes, edges


def _score(name: str, kind: str, test: float, tasks: list[str], draw: random.Random) -> Any:
    per_task = {
        t: {
            split: {"score": test + draw.uniform(-0.08, 0.08), "se": 0.02}
            for split in ("dev", "select", "test")
        }
        for t in tasks
    }
    return {
        "name": name,
        "kind": kind,
        "id": None,
        "dev": test + 0.02,
        "select": test + 0.01,
        "test": test,
        "test_se": 0.02,
        "tasks": per_task,
    }


def _shares(names: list[str], layers: int, draw: random.Random) -> dict[str, Any]:
    groups = ["embedding", *(f"layer {k}" for k in range(layers)), "head"]
    weights = [[draw.uniform(-0.3, 1) ** 3 for _ in names] for _ in groups]
    return {
        "groups": groups,
        "founders": names,
        "weight": weights,
        "share": [[abs(w) / sum(map(abs, row)) for w in row] for row in weights],
        "note": "",
    }


def _path(names: list[str], layers: int) -> dict[str, Any]:
    route = [(0, k, 1.0) for k in range(layers - 1)]
    route += [(1, k, 0.8) for k in range(layers // 2, layers)]
    route += [(2 % len(names), k, 1.25) for k in range(layers - 2, layers)]
    return {
        "models": [{"id": f"{k:064x}", "name": name} for k, name in enumerate(names)],
        "layers": layers,
        "embed": 0,
        "head": 1,
        "steps": [{"model": m, "layer": layer, "scale": s} for m, layer, s in route],
        "notes": [f"{len(route)} steps", f"repeated: {names[0]} 3"],
    }
