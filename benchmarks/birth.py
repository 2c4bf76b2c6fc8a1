"""Birth: how near making a child comes to a plain copy, and a population against its children one by one.

Founders are made up, of 64M parameters, and mapped from files as a host maps them. Of every case:

- ours: ``Materializer.build``;
- torch alone: the same without the compiled kernel, as on a machine that has no C compiler;
- before: what it was until then, sums of whole float32 tensors (linear, one thread);
- copy: as many bytes read and written, from buffer to buffer, by ``memcpy`` (numpy), cut among as many threads;
- torch copy: the same by ``Tensor.copy_``.

Candidates take turns, and medians are told, with the least and the most. A share is bytes read and
written a second, against those of the copy. Other work may share the machine: seconds of processor time
are told beside those of the clock, and suffer less from it.

    python benchmarks/birth.py [--repeats 5] [--threads 1 2] [--children 40]
"""

import argparse
import cProfile
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from results import save
from safetensors.torch import save_file

from cluster.founders import open_checkpoint
from operators import native
from operators.materialize import Materializer
from operators.merge import merge
from operators.merge.linear import weighted_sum
from operators.recipe import Founder, Linear, Recipe, linear
from operators.weights import Layout, Weights, allocate

HIDDEN, LAYERS, VOCABULARY = 1024, 4, 16000
FOUNDERS = tuple(Founder(f"f{i}", "0") for i in range(10))
Model = dict[Founder, Weights]
Candidate = Callable[[], None]


def write_founders(folder: Path, dtype: torch.dtype) -> Model:
    """Ten founders near each other, saved and mapped."""
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        for name, inner in (
            ("self_attn.qkv", 3),
            ("self_attn.o", 1),
            ("mlp.up", 4),
            ("mlp.down", 4),
        ):
            shapes[f"model.layers.{layer}.{name}.weight"] = (inner * HIDDEN, HIDDEN)
    generator = torch.Generator().manual_seed(0)
    base = {n: 0.02 * torch.randn(s, generator=generator) for n, s in shapes.items()}
    models = {}
    for founder in FOUNDERS:
        tensors = {
            n: (t + 0.002 * torch.randn(t.shape, generator=generator)).to(dtype)
            for n, t in base.items()
        }
        file = folder / f"{founder.name}-{str(dtype).removeprefix('torch.')}.safetensors"
        save_file(tensors, file, {"format": "pt"})
        models[founder] = open_checkpoint(file)
    return models


def evenly(founders: int) -> Recipe:
    weights = [0.5 + i / founders for i in range(founders)]
    return linear({f: w / sum(weights) for f, w in zip(FOUNDERS, weights, strict=False)})


def recipes() -> dict[str, tuple[Recipe, int]]:
    """What is built, and how many founders it reads."""
    a, b, c = FOUNDERS[:3]
    return {
        "linear, 2 founders": (evenly(2), 2),
        "linear, 3 founders": (evenly(3), 3),
        "linear, 10 founders": (evenly(10), 10),
        "slerp": (merge("slerp", [a, b], params={"t": 0.4}), 2),
        "ties": (merge("ties", [a, b], base=c, params={"density": 0.5}), 3),
    }


class Copy:
    """Plain copies of so many bytes, half read and half written."""

    def __init__(self, total: int, threads: int) -> None:
        piece = total // 2 // threads
        self._pairs = [
            (torch.zeros(piece, dtype=torch.uint8), torch.ones(piece, dtype=torch.uint8))
            for _ in range(threads)
        ]
        self._pool = ThreadPoolExecutor(threads)

    def by_memcpy(self) -> None:
        list(self._pool.map(lambda p: np.copyto(p[0].numpy(), p[1].numpy()), self._pairs))

    def by_torch(self) -> None:
        for to, source in self._pairs:
            to.copy_(source)


def before(models: Model, layout: Layout, recipe: Recipe, out: Weights) -> None:
    """Linear individuals as they were built until there was one pass for all."""
    if not isinstance(recipe, Linear):
        raise TypeError("linear recipes only")
    with torch.inference_mode():
        for spec in layout:
            parts = [
                models[f][spec.name].float() for f, _ in recipe.terms if isinstance(f, Founder)
            ]
            weights = [float(c) for _, c in recipe.terms if isinstance(c, float)]
            out[spec.name].copy_(weighted_sum(parts, weights))


@contextmanager
def no_compiler() -> Iterator[None]:
    with patch.object(native, "library", lambda: None):
        yield


def alternate(candidates: dict[str, Candidate], repeats: int) -> dict[str, dict[str, Any]]:
    """Seconds of each, by the clock and of processor time; the first turn warms up and is left out."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for repeat in range(repeats + 1):
        for name, call in candidates.items():
            clock, used = time.perf_counter(), time.process_time()
            call()
            took = time.perf_counter() - clock, time.process_time() - used
            if repeat:
                seen[name].append(took)
    return {
        name: {
            "seconds": round(median(c for c, _ in took), 4),
            "least": round(min(c for c, _ in took), 4),
            "most": round(max(c for c, _ in took), 4),
            "processor_s": round(median(p for _, p in took), 4),
        }
        for name, took in seen.items()
    }


def profile(call: Candidate, most: int = 6) -> list[dict[str, Any]]:
    """What took how long by itself, by one thread."""
    profiler = cProfile.Profile()
    profiler.runcall(call)
    rows = pstats.Stats(profiler).stats.items()  # type: ignore[attr-defined]
    whole = sum(row[2] for _, row in rows)
    longest = sorted(rows, key=lambda item: -item[1][2])[:most]
    return [
        {
            "what": f"{Path(file).name}:{name}",
            "seconds": round(row[2], 3),
            "share": round(row[2] / whole, 3),
        }
        for (file, _, name), row in longest
    ]


def shares(models: Model, threads: int, repeats: int) -> list[dict[str, Any]]:
    layout = models[FOUNDERS[0]].layout
    size = sum(t.nbytes for t in models[FOUNDERS[0]].tensors.values())
    out, rows = allocate(layout), []
    for case, (recipe, reads) in recipes().items():
        materializer = Materializer(layout, models)
        copy = Copy((reads + 1) * size, threads)

        def ours(m: Materializer = materializer, r: Recipe = recipe) -> None:
            m.build(r, out)

        def torch_alone(call: Candidate = ours) -> None:
            with no_compiler():
                call()

        candidates = {"ours": ours, "copy": copy.by_memcpy, "torch copy": copy.by_torch}
        if isinstance(recipe, Linear):
            candidates["torch alone"] = torch_alone
            if (
                threads == 1
            ):  # with more, its threads wait for each other, and for all else that runs here
                candidates["before"] = lambda r=recipe: before(models, layout, r, out)
        turns = repeats if isinstance(recipe, Linear) else min(3, repeats)
        took = alternate(candidates, turns)
        row = {
            "case": case,
            "dtype": str(layout.specs[0].dtype).removeprefix("torch."),
            "threads": threads,
            "mb": round((reads + 1) * size / 1e6),
            "gb_per_s": round((reads + 1) * size / 1e9 / took["ours"]["seconds"], 1),
            "share_of_copy": share(took, "copy", "seconds"),
            "share_of_copy_processor": share(took, "copy", "processor_s"),
            "share_of_torch_copy": share(took, "torch copy", "seconds"),
            "took": took,
        }
        if threads == 1:
            row["profile"] = profile(ours)
        rows.append(row)
        print(line(row), flush=True)
    return rows


def share(took: dict[str, dict[str, Any]], of: str, what: str) -> float:
    return round(took[of][what] / took["ours"][what], 3)


def population(models: Model, threads: int, repeats: int, children: int) -> dict[str, Any]:
    """Children of all founders, no two alike, in one pass and one by one."""
    layout = models[FOUNDERS[0]].layout
    generator = np.random.default_rng(0)
    wanted = [
        linear(
            {f: float(w) for f, w in zip(FOUNDERS, generator.dirichlet([1.0] * 10), strict=True)}
        )
        for _ in range(children)
    ]
    outs = [allocate(layout) for _ in wanted]
    materializer = Materializer(layout, models)

    def together() -> None:
        materializer.build_all(wanted, outs)

    def one_by_one() -> None:
        for recipe, out in zip(wanted, outs, strict=True):
            materializer.build(recipe, out)

    took = alternate({"ours": together, "one by one": one_by_one}, repeats)
    row = {
        "children": children,
        "threads": threads,
        "times_faster": share(took, "one by one", "seconds"),
        "times_faster_processor": share(took, "one by one", "processor_s"),
        "took": took,
    }
    if threads == 1:
        row["profile"] = profile(together)
    print(f"{children} children, {threads} threads: {row['times_faster']}x", flush=True)
    return row


def line(row: dict[str, Any]) -> str:
    took = row["took"]
    others = ", ".join(f"{n} {t['seconds']:.3f}" for n, t in took.items() if n != "ours")
    return (
        f"{row['case']:22}{row['dtype']:10}{row['threads']} threads {took['ours']['seconds']:8.3f} s "
        f"{row['gb_per_s']:6.1f} GB/s {row['share_of_copy']:6.0%} of copy "
        f"({row['share_of_copy_processor']:.0%} by processor time), "
        f"{row['share_of_torch_copy']:.0%} of torch's; {others}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--children", type=int, default=40)
    arguments = parser.parse_args()
    clock = time.perf_counter()
    compiled = native.library() is not None
    data: dict[str, Any] = {
        "kernel": {"compiled": compiled, "compile_s": round(time.perf_counter() - clock, 2)},
        "shares": [],
        "populations": [],
    }
    for dtype in (torch.bfloat16, torch.float32):
        with tempfile.TemporaryDirectory() as folder:
            models = write_founders(Path(folder), dtype)
            for threads in arguments.threads:
                torch.set_num_threads(threads)
                data["shares"] += shares(models, threads, arguments.repeats)
                if dtype == torch.bfloat16:
                    data["populations"].append(
                        population(models, threads, min(3, arguments.repeats), arguments.children)
                    )
                save("birth", data)


if __name__ == "__main__":
    main()
