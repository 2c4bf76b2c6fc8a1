"""Every individual that ever lived, again: four kinds of run, 20 random individuals each.

python benchmarks/rebuild.py [--zoo demo/zoo] [--evaluations 120] [--sample 20] [--pool local|ray]

A run is made on hosts of its own, as users make it. Then individuals are drawn from all that it ever
tried, the dead among them: each is rebuilt from recipe and founders, in this process, and evaluated
again. Its weights' digest, its dev score and every example's value must be those that were recorded.

Then what the digests cost: seconds to build an individual's weights, to digest them, and to evaluate it,
for the zoo's models and for one of 300 MB.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import transformers
from results import save

import evo
from cluster.founders.checkpoints import load_founders
from cluster.host.builder import Builder
from cluster.host.model_host import ModelHost
from cluster.jobs import EngineSpec, HostSpec, Job, Query
from evo.cli.zoo import build_zoo
from evo.evolution import Evolution
from evo.reproduce.verify import verify
from evo.run.setup import load_tasks
from fitness.requests import LogLikelihood, Request
from operators.recipe import Recipe, Route, linear
from operators.variation.mutation import perturb

MODELS = ("rev", "sort", "desc", "swap", "even", "pmax", "pmin", "succpred", "alpha1", "alpha2")
ADAPTERS = ("rev", "swap", "pmax", "sort", "desc", "pmin")
RUNS: dict[str, dict[str, Any]] = {
    "genome_plus": {"name": "genome_plus"},
    "recipe_search": {"name": "recipe_search"},
    "dataflow": {"name": "dataflow"},
    "lora": {"name": "genome", "genes": "coefficients", "crossover": "lora_concat"},
}


def headline(data: dict[str, Any]) -> str:
    runs = data["runs"].values()
    sampled, same = (sum(r[key] for r in runs) for key in ("sampled", "same_weights"))
    large = data["cost_of_digests"]["300 MB"]
    return (
        f"{same} of {sampled} individuals built again bit for bit; digests take "
        f"{large['share_of_evaluation']:.0%} of an evaluation of a 300 MB model"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--zoo", type=Path, default=Path("demo/zoo"))
    parser.add_argument("--evaluations", type=int, default=120)
    parser.add_argument("--sample", type=int, default=20)
    parser.add_argument("--pool", choices=("local", "ray"), default="ray")
    options = parser.parse_args()
    build_zoo(options.zoo, seed=0)
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in RUNS:
            if name == "lora" and not (options.zoo / "adapters").is_dir():
                print("lora: no adapters in the zoo; make them with `evo zoo adapters`")
                continue
            lineage = one_run(name, options, Path(folder) / name)
            runs[name] = proof(lineage, options.sample)
            print(line(name, runs[name]), flush=True)
        costs = {"zoo": zoo_cost(options.zoo), "300 MB": large_cost(Path(folder))}
    for name, cost in costs.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in cost.items()))
    settings = {"evaluations": options.evaluations, "sample": options.sample, "pool": options.pool}
    data = {"settings": settings, "runs": runs, "cost_of_digests": costs}
    print(save("rebuild", data, headline(data)))


def one_run(name: str, options: argparse.Namespace, run_dir: Path) -> evo.lineage.Lineage:
    """A finished run."""
    zoo, lora = options.zoo, name == "lora"
    task = "trio" if lora else "alien"
    pool = {"kind": "ray", "hosts": 2} if options.pool == "ray" else {"kind": "local"}
    config = evo.RunConfig(
        base=zoo / "base",
        founders={n: zoo / "adapters" / n for n in ADAPTERS}
        if lora
        else {n: zoo / n for n in MODELS},
        tasks=[evo.TaskConfig(name=task, files=zoo / "tasks" / task)],
        algorithm=RUNS[name],
        budget=evo.BudgetConfig(evaluations=options.evaluations),
        pool=pool,
    )
    with Evolution(config, run_dir) as run:
        for _ in run:
            pass
        run.finish()
        return run.lineage


def proof(lineage: evo.lineage.Lineage, sample: int) -> dict[str, Any]:
    """How many of a sample are what they were."""
    started = perf_counter()
    found = verify(lineage.run_dir, sample=sample, seed=0)
    seconds = perf_counter() - started
    population = lineage.population.to_pandas()
    last = population[population["generation"] == population["generation"].max()]
    rebuilt = [evo.rebuild(lineage, c.id, check=False) for c in found.checked]
    return {
        "individuals": lineage.individuals.num_rows,
        "sampled": len(found.checked),
        "dead": sum(c.id not in set(last["individual"]) for c in found.checked),
        "with_noise": sum("noise" in c.description for c in found.checked),
        "paths": sum(isinstance(r.recipe, Route) for r in rebuilt),
        "failed": sum(None in c.scores.values() for c in found.checked),
        "same_weights": sum(r.same is True for r in rebuilt),
        "same_score_and_values": sum(not c.differences for c in found.checked),
        "values_compared": sum(c.examples for c in found.checked),
        "differences": [d for c in found.checked for d in c.differences],
        "verify_s": round(seconds, 2),
    }


def line(name: str, run: dict[str, Any]) -> str:
    """One row of the table."""
    return (
        f"{name:14s} {run['sampled']} of {run['individuals']} ({run['dead']} dead): weights same "
        f"{run['same_weights']}, scores and values same {run['same_score_and_values']} "
        f"({run['values_compared']} values), {run['verify_s']:.1f} s"
    )


def zoo_cost(zoo: Path) -> dict[str, float]:
    """Of GENOME+'s children on the zoo: sums of ten models and a few directions of noise."""
    founders = load_founders(zoo / "base", {name: zoo / name for name in MODELS})
    parents = linear({f.founder: 1 / len(MODELS) for f in founders.founders})
    task = load_tasks((evo.TaskConfig(name="alien", files=zoo / "tasks" / "alien"),))[0]
    query = Query("alien", "dev")
    return cost(founders, parents, {query: tuple(task.task.requests("dev"))}, repeats=20)


def large_cost(folder: Path) -> dict[str, float]:
    """Of a model of 300 MB in float32, two founders; 100 requests of about 30 tokens."""
    base = folder / "base"
    for number, name in enumerate(("base", "one", "two")):
        torch.manual_seed(number)
        config = transformers.LlamaConfig(
            vocab_size=8000,
            hidden_size=768,
            intermediate_size=2048,
            num_hidden_layers=9,
            num_attention_heads=12,
            bos_token_id=1,
            eos_token_id=2,
        )
        transformers.LlamaForCausalLM(config).save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
    founders = load_founders(base, {name: folder / name for name in ("one", "two")})
    parents = linear({f.founder: 0.5 for f in founders.founders})
    requests = tuple(LogLikelihood("abcdefgh " * 3, f"{i % 10}abc", end=True) for i in range(100))
    return cost(founders, parents, {Query("t", "dev"): requests}, repeats=3)


def cost(
    founders: Any, parents: Recipe, requests: dict[Query, tuple[Request, ...]], repeats: int
) -> dict[str, float]:
    """Median seconds of building, digesting and a whole evaluation, and the digest's share of each."""
    children = [perturb(parents, sigma=0.01, rate=0.5, seed=n) for n in range(repeats)]
    (query,) = requests
    builder = Builder(founders.base, founders.founders)
    megabytes = sum(t.nbytes for t in builder.buffer.tensors.values()) / 1e6
    host = ModelHost(HostSpec(founders.base, founders.founders, EngineSpec(), requests))
    build = median(lambda r=r: builder.build(r) for r in children)
    digest = median(lambda: builder.digest(builder.buffer) for _ in children)
    whole = median(lambda r=r: host.run(Job(r, (query,))) for r in children)
    return {
        "megabytes": megabytes,
        "build_s": build,
        "digest_s": digest,
        "evaluation_s": whole,
        "share_of_build": digest / (build + digest),
        "share_of_evaluation": digest / whole,
    }


def median(calls: Iterator[Callable[[], Any]]) -> float:
    seconds = []
    for call in calls:
        started = perf_counter()
        call()
        seconds.append(perf_counter() - started)
    return statistics.median(seconds)


def tokenizer() -> Any:
    """A token for each character."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split

    names = ["<pad>", "<s>", "</s>", *"0123456789abcdefghijklmnopqrstuvwxyz "]
    inner = Tokenizer(WordLevel({t: i for i, t in enumerate(names)}, unk_token="<pad>"))
    inner.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    fast: Any = transformers.PreTrainedTokenizerFast
    return fast(tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


if __name__ == "__main__":
    main()
