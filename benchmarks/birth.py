"""Birth: how near making a child comes to a plain copy, and a population against its children one by one.

Founders are made up and mapped from safetensors files as a host maps them: the tensors of a Llama of 62M
parameters. Candidates take turns; what is told is medians with the least and the most, of seconds by the
clock and of processor time, which suffers less from what else the machine does.

- share of copy: bytes of founders read and of the child written a second, against those of a plain copy
  (``memcpy`` through numpy, as many bytes, by as many threads) in the same round: of the same tensors, or
  from one large buffer to another ("in one piece", for which memcpy has a faster way on some machines);
- by torch: the same without numba;
- population: children of ten founders, no two alike, in one pass and one by one;
- small: about the demo zoo's size (190k parameters, float32), ten founders.

    python benchmarks/birth.py [--repeats 7] [--threads 1 2] [--children 40] [--kernels]

``--kernels`` compares the compiled kernel with plain numba loops (plain_kernels.py), and nothing else.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from results import save
from runner import Rows, alternate, medians, summary
from safetensors.torch import save_file

from cluster.founders.checkpoints import open_checkpoint
from operators.build import materialize, sums
from operators.build.materialize import Materializer
from operators.merge import merge
from operators.recipe import Founder, Recipe, linear
from operators.recipe.coefficients import Grouped, Rule
from operators.tensors.weights import Weights, allocate

FOUNDERS = tuple(Founder(f"f{i}", "0") for i in range(10))
Model = Mapping[Founder, Weights]
Call = Callable[[], object]


def shapes(hidden: int, inner: int, layers: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """A Llama's tensors, its head tied to the embedding."""
    made: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        parts: dict[str, tuple[int, ...]] = {
            "input_layernorm": (hidden,),
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (hidden // 4, hidden),
            "self_attn.v_proj": (hidden // 4, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "post_attention_layernorm": (hidden,),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        made |= {f"model.layers.{layer}.{n}.weight": s for n, s in parts.items()}
    return {**made, "model.norm.weight": (hidden,)}


def founders(folder: Path, wanted: dict[str, tuple[int, ...]], dtype: torch.dtype) -> Model:
    """Ten near each other, saved and mapped."""
    generator = torch.Generator().manual_seed(0)
    base = {n: 0.02 * torch.randn(s, generator=generator) for n, s in wanted.items()}
    models = {}
    for founder in FOUNDERS:
        near = {
            n: (t + 0.002 * torch.randn(t.shape, generator=generator)).to(dtype)
            for n, t in base.items()
        }
        file = folder / f"{founder.name}.safetensors"
        save_file(near, file, {"format": "pt"})
        models[founder] = open_checkpoint(file)
    return models


def child(founders: int, seed: int = 0) -> Recipe:
    weights = np.random.default_rng(seed).dirichlet([1.0] * founders)
    return linear({f: float(w) for f, w in zip(FOUNDERS, weights, strict=False)})


def cases() -> dict[str, tuple[Recipe, int]]:
    """What is built, and how many founders it reads."""
    a, b, c = FOUNDERS[:3]
    return {
        "linear of 2": (child(2), 2),
        "linear of 10": (child(10), 10),
        "slerp": (merge("slerp", [a, b], params={"t": 0.4}), 2),
        "ties of 2": (merge("ties", [a, b], base=c, params={"density": 0.5}), 3),
    }


class Copy:
    """Founders' tensors copied as they are, tensor by tensor, to the child's: so many bytes in all.

    Half of them read and half written. Threads share the tensors out.
    """

    def __init__(self, models: Model, out: Weights, total: int, threads: int) -> None:
        self._pairs, left = [], total // 2
        for model in list(models.values()) * 2:
            for name, tensor in model.tensors.items():
                source = array(tensor)[:left]
                self._pairs.append((array(out[name])[: len(source)], source))
                left -= len(source)
        self._pool = ThreadPoolExecutor(threads)

    def __call__(self) -> None:
        list(self._pool.map(lambda pair: np.copyto(*pair), self._pairs))


class OnePiece:
    """Plain copies of so many bytes in all from one buffer to another, in as many pieces as threads."""

    def __init__(self, total: int, threads: int) -> None:
        piece = total // 2 // threads
        self._pairs = [
            (np.zeros(piece, dtype=np.uint8), np.ones(piece, dtype=np.uint8))
            for _ in range(threads)
        ]
        self._pool = ThreadPoolExecutor(threads)

    def __call__(self) -> None:
        list(self._pool.map(lambda pair: np.copyto(*pair), self._pairs))


def array(tensor: torch.Tensor) -> Any:
    return tensor.view(torch.uint8).reshape(-1).numpy()


def by_torch(call: Call) -> Call:
    def alone() -> None:
        with patch.object(sums, "COMPILED_FROM", 1 << 60):
            call()

    return alone


def timed(call: Call) -> Callable[[], dict[str, float]]:
    call()  # what is made once is made here

    def measure() -> dict[str, float]:
        clock, used = time.perf_counter(), time.process_time()
        call()
        return {
            "seconds": time.perf_counter() - clock,
            "processor_s": time.process_time() - used,
        }

    return measure


def compared(candidates: Mapping[str, Call], repeats: int) -> Rows:
    return alternate({name: timed(call) for name, call in candidates.items()}, repeats)


def ratios(rows: Rows, of: str, to: str = "ours") -> dict[str, Any]:
    """How many times as long ``of`` took, round by round."""
    both = list(zip(rows[of], rows[to], strict=True))
    return summary([{k: a[k] / b[k] for k in a} for a, b in both])


def told(rows: Rows) -> dict[str, Any]:
    return {name: summary(found) for name, found in rows.items()}


def shares(models: Model, threads: int, repeats: int) -> list[dict[str, Any]]:
    layout = models[FOUNDERS[0]].layout
    size = sum(t.nbytes for t in models[FOUNDERS[0]].tensors.values())
    out, materializer, made = allocate(layout), Materializer(layout, models), []
    for case, (recipe, reads) in cases().items():

        def ours(recipe: Recipe = recipe) -> None:
            materializer.build(recipe, out)

        total = (reads + 1) * size
        candidates: dict[str, Call] = {
            "ours": ours,
            "copy": Copy(models, out, total, threads),
            "copy in one piece": OnePiece(total, threads),
        }
        if case.startswith("linear"):
            candidates["by torch"] = by_torch(ours)
        dtype = str(layout.specs[0].dtype).removeprefix("torch.")
        print(f"-- {case}, {dtype}, {threads} threads", flush=True)
        rows = compared(candidates, repeats)
        row = {
            "case": case,
            "dtype": dtype,
            "threads": threads,
            "bytes": (reads + 1) * size,
            "gb_per_s": (reads + 1) * size / 1e9 / medians(rows["ours"])["seconds"],
            "share_of_copy": ratios(rows, "copy"),
            "share_of_copy_in_one_piece": ratios(rows, "copy in one piece"),
            "took": told(rows),
        }
        made.append(row)
    return made


def population(models: Model, threads: int, repeats: int, children: int) -> dict[str, Any]:
    layout = models[FOUNDERS[0]].layout
    wanted = [child(len(FOUNDERS), seed) for seed in range(children)]
    outs = [allocate(layout) for _ in wanted]
    materializer = Materializer(layout, models)

    def one_by_one() -> None:
        for recipe, out in zip(wanted, outs, strict=True):
            materializer.build(recipe, out)

    print(f"-- {children} children, {threads} threads", flush=True)
    together: Call = lambda: materializer.build_all(wanted, outs)  # noqa: E731
    rows = compared({"ours": together, "one by one": one_by_one}, repeats)
    return {
        "children": children,
        "threads": threads,
        "times_faster": ratios(rows, "one by one"),
        "took": told(rows),
    }


def small(repeats: int) -> list[dict[str, Any]]:
    """Models of the demo zoo's sizes; "by tensor" is how larger models are built."""
    by_layer = {
        f: Grouped((Rule(("mlp",), (0.05, 0.1 + i / 50)), Rule((), (0.1, 0.2 - i / 50))))
        for i, f in enumerate(FOUNDERS)
    }
    recipes = {"one number a founder": child(10), "numbers by layer and filter": linear(by_layer)}
    made = []
    with tempfile.TemporaryDirectory() as folder:
        models = founders(Path(folder), shapes(64, 224, 3, 512), torch.float32)
        layout = models[FOUNDERS[0]].layout
        out, packed = allocate(layout), Materializer(layout, models)
        with patch.object(materialize, "MOST_ELEMENTS", 0):
            by_tensor = Materializer(layout, models)
        for name, recipe in recipes.items():
            print(f"-- small model, {name}", flush=True)
            each = {"ours": packed, "by tensor": by_tensor}
            calls: dict[str, Call] = {
                k: lambda m=m, r=recipe: m.build(r, out)  # type: ignore[misc]
                for k, m in each.items()
            }
            rows = compared(calls, repeats)
            made.append(
                {
                    "coefficients": name,
                    "parameters": layout.elements,
                    "tensors": len(layout.specs),
                    "times_faster": ratios(rows, "by tensor"),
                    "took": told(rows),
                }
            )
    return made


def by_plain_loops(call: Call) -> Call:
    import plain_kernels

    from operators.build import kernels

    def alone() -> None:
        with patch.object(kernels, "weighted_sums", plain_kernels.weighted_sums):
            call()

    return alone


def compared_kernels(threads: int, repeats: int) -> list[dict[str, Any]]:
    """Linear children of a model of 303M parameters in bfloat16: by our kernel and by plain loops."""
    made = []
    wanted = shapes(1024, 2816, 24, 32000)
    with tempfile.TemporaryDirectory() as folder:
        piece = 0.02 * torch.randn(1 << 22, generator=torch.Generator().manual_seed(0))
        models = {}
        for number, founder in enumerate(FOUNDERS[:4]):
            near = {}
            for name, shape in wanted.items():
                flat = torch.empty(shape, dtype=torch.bfloat16).view(-1)
                for part in flat.split(len(piece)):
                    part.copy_(piece.roll(number)[: len(part)])
                near[name] = flat.view(shape)
            file = Path(folder) / f"{founder.name}.safetensors"
            save_file(near, file, {"format": "pt"})
            models[founder] = open_checkpoint(file)
        layout = models[FOUNDERS[0]].layout
        out, materializer = allocate(layout), Materializer(layout, models)
        for count in (2, 4):
            recipe = child(count)

            def ours(recipe: Recipe = recipe) -> None:
                materializer.build(recipe, out)

            print(f"-- kernels: linear of {count}, {threads} threads", flush=True)
            rows = compared({"ours": ours, "plain loops": by_plain_loops(ours)}, repeats)
            made.append(
                {
                    "case": f"linear of {count}",
                    "dtype": "bfloat16",
                    "parameters": layout.elements,
                    "threads": threads,
                    "plain_loops_take_times": ratios(rows, "plain loops"),
                    "took": told(rows),
                }
            )
    return made


def kernels_headline(rows: list[dict[str, Any]]) -> str:
    worst = max(r["plain_loops_take_times"]["processor_s"]["median"] for r in rows)
    least = min(r["plain_loops_take_times"]["processor_s"]["median"] for r in rows)
    return (
        f"plain numba loops take {least:.2f} to {worst:.2f} times the processor time of the kernel "
        f"({rows[0]['parameters'] / 1e6:.0f}M parameters)"
    )


def headline(data: dict[str, Any]) -> str:
    linear = [r for r in data["shares"] if r["case"].startswith("linear")]
    least = min((r["share_of_copy"]["seconds"]["median"] for r in linear), default=0.0)
    said = [
        f"linear children at {least:.0%} or more of the speed at which their tensors are copied"
    ]
    for row in data["populations"]:
        faster = row["times_faster"]["seconds"]["median"]
        said.append(
            f"{row['children']} at once {faster:.1f}x as fast ({row['dtype']}, {row['threads']} threads)"
        )
    for row in data["small"][:1]:
        said.append(f"a zoo child in {1e3 * row['took']['ours']['seconds']['median']:.2f} ms")
    return "; ".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--children", type=int, default=40)
    parser.add_argument("--kernels", action="store_true", help="only: the kernel and plain loops")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.kernels:
        found: list[dict[str, Any]] = []
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            found += compared_kernels(threads, arguments.repeats)
        save("birth_kernels", {"rows": found}, kernels_headline(found))
        return
    data: dict[str, Any] = {"shares": [], "populations": [], "small": small(5 * arguments.repeats)}
    for dtype in (torch.bfloat16, torch.float32):
        with tempfile.TemporaryDirectory() as folder:
            models = founders(Path(folder), shapes(1024, 2816, 4, 16000), dtype)
            for threads in arguments.threads:
                torch.set_num_threads(threads)
                data["shares"] += shares(models, threads, arguments.repeats)
                if dtype == torch.bfloat16:
                    found = population(
                        models, threads, min(3, arguments.repeats), arguments.children
                    )
                    data["populations"].append({"dtype": "bfloat16", **found})
                save("birth", data, headline(data))


if __name__ == "__main__":
    main()
