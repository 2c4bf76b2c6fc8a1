"""One evaluation of a language model: shared beginnings, budgets, attention, compilation, precision.

python benchmarks/evaluation.py [--zoo demo/zoo] [--repeats 7]

Prompts and weights are random, but for the demo zoo: times do not depend on them. ``rows`` is every request
read by itself; ``chains`` reads a row that begins another one with that; ``trees`` is what the engine does.
``prefix cache`` is the other way to share one long beginning: read it once, then all rows with its keys and
values copied beside each. Candidates take turns; milliseconds of processor time on one thread.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any
from unittest.mock import patch

import torch
from results import save
from runner import alternate, medians, summary
from tiny_models import write_models
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import DynamicCache

from evo.cli.zoo import build_zoo
from fitness.engines.hf.engine import HFEngine
from fitness.engines.hf.rows.prefixes import chains
from fitness.engines.hf.scores import logits_of
from fitness.engines.hf.token_budget import BUDGETS
from fitness.requests import LogLikelihood, Request
from fitness.tasks.task import Task, TaskSpec, load_task

VOCABULARY = 768
POSITIONS = 1024
SMALL = {"hidden": 128, "layers": 4}  # 0.95M parameters, as against mergekit-evolve
LARGE = {"hidden": 512, "layers": 8}  # 25M parameters


def words(chance: random.Random, count: int) -> str:
    return " ".join(f"w{chance.randrange(1, VOCABULARY)}" for _ in range(count))


def choices(items: int, tokens: int) -> list[Request]:
    """Four answers of ``tokens`` tokens each to questions of 24."""
    chance = random.Random(0)
    questions = [words(chance, 24) for _ in range(items)]
    return [LogLikelihood(q, " " + words(chance, tokens)) for q in questions for _ in range(4)]


def shots(items: int) -> list[Request]:
    """Five examples of 32 tokens before each question of 28 and answer of 4."""
    chance = random.Random(1)
    before = words(chance, 5 * 32)
    return [
        LogLikelihood(f"{before} {words(chance, 28)}", " " + words(chance, 4)) for _ in range(items)
    ]


REQUESTS: Mapping[str, Sequence[Request]] = {
    "60 items of 4 choices of 1 token": choices(60, 1),
    "60 items of 4 choices of 6 tokens": choices(60, 6),
    "5 shots, 100 questions": shots(100),
}


def timed(work: Callable[[], object]) -> Callable[[], dict[str, float]]:
    def run() -> dict[str, float]:
        started, began = process_time(), perf_counter()
        work()
        return {
            "cpu_ms": 1e3 * (process_time() - started),
            "wall_ms": 1e3 * (perf_counter() - began),
        }

    work()
    return run


def prepared_as(engine: HFEngine, requests: Sequence[Request], how: str) -> Any:
    if how == "trees":
        return engine.prepare(requests)
    each = (lambda rows, *_, **__: chains(rows)) if how == "chains" else _one_by_one
    with patch("fitness.engines.hf.engine.grow", each):
        return engine.prepare(requests)


def _one_by_one(rows: Any, *_: Any, **__: Any) -> Any:
    return [tree for row in rows for tree in chains([row])]


def cached_prefix(engine: HFEngine, requests: Sequence[Request]) -> Callable[[], object]:
    """Logits of rows of one length that share their first tokens."""
    rows = engine.tokenizer([r.context + r.continuation for r in requests])["input_ids"]
    ids = torch.tensor(rows)[:, :-1]
    shared = int((ids == ids[0]).all(0).long().cumprod(0).sum())
    places = torch.arange(ids.shape[1] - shared - 4, ids.shape[1] - shared)

    def work() -> object:
        with torch.inference_mode():
            cache = DynamicCache(config=engine.model.config)
            engine.model(ids[:1, :shared], past_key_values=cache, logits_to_keep=1)
            cache.batch_repeat_interleave(len(ids))
            logits = engine.model(
                ids[:, shared:], past_key_values=cache, logits_to_keep=places
            ).logits
            return logits.log_softmax(-1)

    return work


def sharing(engine: HFEngine, repeats: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, requests in REQUESTS.items():
        ways = {how: prepared_as(engine, requests, how) for how in ("rows", "chains", "trees")}
        work = {how: timed(lambda p=p: engine.answer(p)) for how, p in ways.items()}
        if "shots" in name:
            work["prefix cache"] = timed(cached_prefix(engine, requests))
        print(name)
        times = {how: summary(rows) for how, rows in alternate(work, repeats).items()}
        tokens = {how: p.scored_tokens for how, p in ways.items()}
        answers = {how: engine.answer(p) for how, p in ways.items()}
        pairs = list(zip(answers["rows"], answers["trees"], strict=True))
        found[name] = {
            "times": times,
            "tokens": tokens,
            "greatest_difference_of_logprob": max(abs(a.logprob - b.logprob) for a, b in pairs),
            "verdicts_that_differ": sum(a.greedy != b.greedy for a, b in pairs),
        }
    return found


def budgets(engine: HFEngine, requests: Sequence[Request], repeats: int) -> dict[str, Any]:
    """The same requests in batches of several sizes; do they have the same bits?"""
    work, answers = {}, {}
    kept = engine.batch_tokens
    for budget in BUDGETS:
        engine.batch_tokens = budget
        prepared = engine.prepare(requests)
        work[str(budget)] = timed(lambda p=prepared: engine.answer(p))
        rows = prepared_as(engine, requests, "rows")
        answers[budget] = [o.logprob for o in engine.answer(rows)]
    engine.batch_tokens = kept
    times = {budget: summary(rows) for budget, rows in alternate(work, repeats).items()}
    equal = {str(b): answers[b] == answers[BUDGETS[-1]] for b in BUDGETS}
    return {"times": times, "rows_have_the_bits_of_the_largest_budget": equal}


def attention(engine: HFEngine, requests: Sequence[Request], repeats: int) -> dict[str, Any]:
    prepared = prepared_as(engine, requests, "rows")

    def math() -> object:
        with sdpa_kernel(SDPBackend.MATH):
            return engine.answer(prepared)

    def eager() -> object:
        engine.model.set_attn_implementation("eager")
        try:
            return engine.answer(prepared)
        finally:
            engine.model.set_attn_implementation("sdpa")

    work = {"flash": timed(lambda: engine.answer(prepared)), "math": timed(math)}
    rows = alternate({**work, "eager": timed(eager)}, repeats)
    return {name: summary(each) for name, each in rows.items()}


def compilation(path: Path, requests: Sequence[Request], repeats: int) -> dict[str, Any]:
    plain, quick = HFEngine(path), HFEngine(path, compile=True)
    prepared = {"plain": plain.prepare(requests), "compiled": quick.prepare(requests)}
    began = perf_counter()
    quick.answer(prepared["compiled"])
    seconds = perf_counter() - began
    work = {
        "plain": timed(lambda: plain.answer(prepared["plain"])),
        "compiled": timed(lambda: quick.answer(prepared["compiled"])),
    }
    times = {name: summary(rows) for name, rows in alternate(work, repeats).items()}
    return {"seconds_to_compile": seconds, "shapes": len(prepared["plain"].scored), "times": times}


def precision(path: Path, requests: Sequence[Request], repeats: int) -> dict[str, Any]:
    work = {}
    for dtype in (torch.float32, torch.bfloat16):
        engine = HFEngine(path, dtype=dtype)
        prepared = engine.prepare(requests)
        work[str(dtype).removeprefix("torch.")] = timed(lambda e=engine, p=prepared: e.answer(p))
    return {name: summary(rows) for name, rows in alternate(work, repeats).items()}


def parts(engine: HFEngine, task: Task, repeats: int) -> dict[str, Any]:
    """The model's forward among all that an evaluation does, building excepted."""
    prepared: Any = engine.prepare(task.requests("dev"))

    def forward() -> None:
        with torch.inference_mode():
            for batch in prepared.scored:
                logits_of(engine.model, batch, keeps_logits=engine._keeps_logits)

    outputs = engine.answer(prepared)
    work = {
        "forward": timed(forward),
        "answer": timed(lambda: engine.answer(prepared)),
        "score": timed(lambda: task.score("dev", outputs)),
    }
    found = alternate(work, repeats)
    middle = {name: medians(rows)["cpu_ms"] for name, rows in found.items()}
    share = middle["forward"] / (middle["answer"] + middle["score"])
    return {**{name: summary(rows) for name, rows in found.items()}, "forward_share": share}


def headline(data: dict[str, Any]) -> str:
    def ratio(times: Any, one: str, other: str) -> str:
        return f"{times[one]['cpu_ms']['median'] / times[other]['cpu_ms']['median']:.1f}x"

    shared = {name: ratio(f["times"], "rows", "trees") for name, f in data["sharing"].items()}
    told = "; ".join(f"{name} {value}" for name, value in shared.items())
    compiled = data["compiled"]["demo zoo"]
    return (
        f"beginnings read once against every row (0.95M parameters): {told}; torch.compile on the demo zoo "
        f"{ratio(compiled['times'], 'plain', 'compiled')} after {compiled['seconds_to_compile']:.0f} s; "
        f"forward is {data['parts']['forward_share']:.0%} of an evaluation's answers and scores"
    )


def model(folder: Path, name: str, sizes: dict[str, int], dtype: torch.dtype) -> Path:
    write_models(folder / name, (), vocabulary=VOCABULARY, **sizes)
    path = folder / name / "base"
    config = json.loads((path / "config.json").read_text())
    config |= {"max_position_embeddings": POSITIONS, "dtype": str(dtype).removeprefix("torch.")}
    (path / "config.json").write_text(json.dumps(config))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--zoo", type=Path, default=Path("demo/zoo"))
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    build_zoo(options.zoo, seed=0)
    file = str(options.zoo / "tasks" / "alien.dev.jsonl")
    task = load_task(TaskSpec("alien", "exact_match", files=(("dev", file),)))
    repeats, few = options.repeats, max(3, options.repeats // 2)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        small = model(folder, "small", SMALL, torch.float32)
        large = model(folder, "large", LARGE, torch.float32)
        zoo = options.zoo / "base"
        engine, demo = HFEngine(small), HFEngine(zoo)
        six = REQUESTS["60 items of 4 choices of 6 tokens"]
        data: dict[str, Any] = {
            "parameters": {
                p.parent.name: HFEngine(p).model.num_parameters() for p in (small, large)
            },
            "sharing": sharing(engine, repeats),
            "parts": parts(demo, task, repeats),
            "budgets": {
                "demo zoo": budgets(demo, task.requests("dev"), repeats),
                "small, 5 shots": budgets(engine, shots(100), repeats),
                "large": budgets(HFEngine(large), six, few),
            },
            "attention": {"demo zoo": attention(demo, task.requests("dev"), repeats)},
            "precision": {
                "small": precision(small, six, repeats),
                "large": precision(large, six, few),
            },
            "compiled": {
                "demo zoo": compilation(zoo, task.requests("dev"), repeats),
                "large": compilation(large, six, few),
            },
        }
    print(headline(data), save("evaluation", data, headline(data)))


if __name__ == "__main__":
    main()
