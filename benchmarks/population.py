"""Many individuals at once against one by one: the demo zoo, and a population of LoRA adapters.

python benchmarks/population.py [--zoo demo/zoo] [--repeats 5] [--threads 1 2]

``zoo``: 16 weighted sums of the demo's ten founders (173,000 parameters), on the first 8 to 200 examples of
its dev set. ``lora``: 16 adapters of rank 8 on a random Llama of 15M parameters made here, and mixtures of
them, on 8 and 32 short examples. Of every case, each individual's part of

- an evaluation: build, digest, answers and scores, by a host, as a run has it;
- the forward pass alone: weights (or factors) that are there are installed, and the answers computed.

Candidates: ``one by one``; ``together``, where the host chooses by its own measurement, made before the
clock runs. For adapters: ``merged, one by one`` (weights added up for each), ``merged, together``, ``applied,
one by one`` and ``applied, together`` (``engine.adapters: apply``). Together and one by one must give the
same outputs to the last bit, or the benchmark stops. Candidates take turns; medians, with the least and the
most. Other work may share the machine: processor seconds stand beside those of the clock.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from results import save
from runner import Rows, alternate, medians, summary
from safetensors.torch import save_file
from tiny_models import write_models

from cluster.founders.checkpoints import FounderSet, load_founders
from cluster.host.builder import Builder
from cluster.host.model_host import ModelHost
from cluster.host.scorer import FitnessScorer, requests_for
from cluster.jobs import EngineSpec, HostSpec, Job, Query
from evo.cli.zoo import build_zoo
from fitness.tasks.task import Task, TaskSpec, load_task
from operators.recipe import Recipe, linear
from operators.tensors.low_rank import Adapted

INDIVIDUALS, RANK = 16, 8
HIDDEN, LAYERS, VOCABULARY = 384, 8, 2048
ZOO_ROWS, LORA_ROWS = (8, 16, 32, 64, 200), (8, 32)
TARGETS = ("self_attn.q_proj", "self_attn.v_proj")


class Candidate:
    """One way to evaluate ``recipes``: a host of its own, warm, its choices made."""

    def __init__(
        self,
        founders: FounderSet,
        recipes: Sequence[Recipe],
        task: Task,
        engine: EngineSpec,
        together: bool,
    ) -> None:
        self._together = together
        self._ask = Query(task.name, "dev")
        self._threads = engine.threads
        requests = {self._ask: requests_for([task])[self._ask]}
        self._host = ModelHost(HostSpec(founders.base, founders.founders, engine, requests))
        self._scorer = FitnessScorer([task])
        self._jobs = [Job(recipe, (self._ask,)) for recipe in recipes]
        builder = Builder(
            founders.base, founders.founders, dtype=engine.dtype, adapters=engine.adapters
        )
        self._built: Any = [builder.adapted(recipe) for recipe in recipes]
        if not isinstance(self._built[0], Adapted):
            self._built = builder.allocate(len(recipes))
            builder.build_all(recipes, [self._built[i] for i in range(len(recipes))])
        self.outputs = self._evaluate()
        self._forward()

    def measure(self) -> dict[str, float]:
        """Milliseconds of one individual."""
        torch.set_num_threads(self._threads)
        evaluation, forward = _timed(self._evaluate), _timed(self._forward)
        return {
            "evaluation_ms": evaluation[0] / INDIVIDUALS,
            "evaluation_cpu_ms": evaluation[1] / INDIVIDUALS,
            "forward_ms": forward[0] / INDIVIDUALS,
            "forward_cpu_ms": forward[1] / INDIVIDUALS,
        }

    def group(self) -> int:
        """How many individuals a pass takes."""
        if not self._together:
            return 1
        engine: Any = self._host._engine
        return max(choice.count for _, choice in engine._population._choices.values())

    def _evaluate(self) -> list[Any]:
        if self._together:
            answers = self._host.run_all(self._jobs)
        else:
            answers = tuple(map(self._host.run, self._jobs))
        results = [self._scorer.score(j, a) for j, a in zip(self._jobs, answers, strict=True)]
        if failed := next((r.error for r in results if not r.ok), ""):
            raise SystemExit(failed)
        return [answer.outputs for answer in answers]

    def _forward(self) -> None:
        engine, prepared = self._host._engine, self._host._prepared[self._ask]
        if self._together:
            engine.answer_many(self._built, prepared)
            return
        for i in range(INDIVIDUALS):
            one = self._built[i]
            if isinstance(one, Adapted):
                engine.install_adapted(one)
            else:
                engine.install(one)
            engine.answer(prepared)


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = perf_counter(), process_time()
    work()
    return 1000 * (perf_counter() - wall), 1000 * (process_time() - cpu)


def zoo_case(zoo: Path, rows: int, threads: int) -> dict[str, Candidate]:
    folders = sorted(zoo.glob("*/config.json"))
    names = [file.parent.name for file in folders if file.parent.name != "base"]
    founders = load_founders(zoo / "base", {n: zoo / n for n in names})
    chance = random.Random(0)
    recipes = [
        linear({f.founder: chance.uniform(0.0, 0.3) for f in founders.founders})
        for _ in range(INDIVIDUALS)
    ]
    file = zoo / "tasks" / "alien.dev.jsonl"
    task = load_task(
        TaskSpec("alien", "exact_match", (("dev", str(file)),), limits=(("dev", rows),))
    )
    engine = EngineSpec(threads=threads)
    return {
        "one by one": Candidate(founders, recipes, task, engine, together=False),
        "together": Candidate(founders, recipes, task, engine, together=True),
    }


def lora_case(folder: Path, rows: int, threads: int) -> dict[str, Candidate]:
    if not (folder / "base").is_dir():
        write_lora(folder)
    founders = load_founders(
        folder / "base", {f"a{i}": folder / f"a{i}" for i in range(INDIVIDUALS)}
    )
    leaves = [f.founder for f in founders.founders]
    recipes = [
        *leaves[: INDIVIDUALS // 2],
        *(linear({a: 0.5, b: 0.5}) for a, b in zip(leaves[::2], leaves[1::2], strict=True)),
    ]
    task = load_task(
        TaskSpec(
            "words",
            "exact_match",
            (("dev", str(folder / "words.jsonl")),),
            limits=(("dev", rows),),
        )
    )
    found = {}
    for adapters, said in (("merge", "merged"), ("apply", "applied")):
        for together, how in ((False, "one by one"), (True, "together")):
            engine = EngineSpec(dtype="float32", threads=threads, adapters=adapters)  # type: ignore[arg-type]
            found[f"{said}, {how}"] = Candidate(founders, recipes, task, engine, together)
    return found


def write_lora(folder: Path) -> None:
    """A base, adapters of it as peft writes them, and questions of ten words and one."""
    write_models(folder, (), hidden=HIDDEN, layers=LAYERS, vocabulary=VOCABULARY)
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK}
    for number in range(INDIVIDUALS):
        torch.manual_seed(number)
        tensors = {}
        for layer in range(LAYERS):
            for target in TARGETS:
                key = f"base_model.model.model.layers.{layer}.{target}"
                tensors[f"{key}.lora_A.weight"] = 0.05 * torch.randn(RANK, HIDDEN)
                tensors[f"{key}.lora_B.weight"] = 0.05 * torch.randn(HIDDEN, RANK)
        (folder / f"a{number}").mkdir()
        save_file(tensors, folder / f"a{number}" / "adapter_model.safetensors")
        (folder / f"a{number}" / "adapter_config.json").write_text(json.dumps(settings))
    chance = random.Random(0)
    with (folder / "words.jsonl").open("w") as file:
        for _ in range(max(LORA_ROWS)):
            words = [f"w{chance.randrange(1, VOCABULARY)}" for _ in range(11)]
            row = {"prompt": " ".join(words[:10]), "answer": f" {words[10]}"}
            file.write(json.dumps(row) + "\n")


def check(case: str, candidates: dict[str, Candidate]) -> None:
    """Stop where company changes bits."""
    for name, candidate in candidates.items():
        alone = candidates[name.replace("together", "one by one")]
        if candidate.outputs != alone.outputs:
            raise SystemExit(f"{case}: {name} gives other outputs than one by one")


def gains(rows: Rows) -> dict[str, dict[str, float]]:
    """How many times as fast as the first candidate, by medians."""
    first = medians(next(iter(rows.values())))
    return {
        name: {key: first[key] / value for key, value in medians(found).items()}
        for name, found in list(rows.items())[1:]
    }


def headline(cases: dict[str, Any]) -> str:
    def best(kind: str, name: str) -> str:
        case, found = max(
            ((c, f["gain"][name]) for c, f in cases.items() if c.startswith(kind)),
            key=lambda pair: pair[1]["evaluation_cpu_ms"],
        )
        return (
            f"{found['evaluation_cpu_ms']:.1f}x an evaluation and {found['forward_cpu_ms']:.1f}x the "
            f"forward ({case})"
        )

    slowest = min(
        found["evaluation_cpu_ms"]
        for f in cases.values()
        for name, found in f["gain"].items()
        if name in ("together", "merged, together")
    )
    return (
        f"16 at once against one by one, processor time: zoo up to {best('zoo', 'together')}; 16 LoRA "
        f"adapters applied against merged up to {best('lora', 'applied, together')}; where the host "
        f"chooses, never below {slowest:.2f}x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--zoo", type=Path, default=Path("demo/zoo"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=["zoo", "lora"], default=["zoo", "lora"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    if not (options.zoo / "zoo.json").is_file():
        build_zoo(options.zoo, seed=0)
    cases: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as text:
        made = {
            **{("zoo", rows): partial(zoo_case, options.zoo) for rows in ZOO_ROWS},
            **{("lora", rows): partial(lora_case, Path(text)) for rows in LORA_ROWS},
        }
        for threads in options.threads:
            for (kind, rows), make in made.items():
                if kind not in options.only:
                    continue
                case = f"{kind}, {rows} examples, {threads} thread{'s' * (threads > 1)}"
                print(case, flush=True)
                candidates = make(rows, threads)
                check(case, candidates)
                measured = alternate(
                    {name: c.measure for name, c in candidates.items()}, options.repeats
                )
                cases[case] = {
                    "individuals_a_pass": {n: c.group() for n, c in candidates.items()},
                    "gain": gains(measured),
                    "candidates": {n: summary(found) for n, found in measured.items()},
                }
                print(json.dumps(cases[case]["gain"], indent=1), flush=True)
                if {name.split(",")[0] for name in cases} == {"zoo", "lora"}:
                    print(save("population", {"cases": cases}, headline(cases)))


if __name__ == "__main__":
    main()
