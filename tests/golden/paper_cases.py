"""The papers' operators against golden/papers: inputs and outputs in float64, with tolerances.

As a script it prints one line for each case: ``python tests/golden/paper_cases.py``.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from operators.tensors.low_rank import Factors, truncate, weighted_concat
from operators.merge.bitdelta import signs
from operators.merge.darex import global_q, row_q, variance_proxy
from operators.merge.exclusive import claimed
from operators.merge.lora import separate_sums, sparse_sum
from operators.merge.pcb import balance, competed
from operators.merge.widen import disentangled
from operators.variation.mutation import orthogonal_coefficients

PAPERS = Path(__file__).parent / "papers"
Arrays = Mapping[str, Tensor]
Params = Mapping[str, Any]


def run_cases() -> Iterator[tuple[str, str, float, float]]:
    """(method, case id, worst difference from the reference, tolerance) for every case."""
    stored = np.load(PAPERS / "golden.npz")
    for case in json.loads((PAPERS / "golden.json").read_text())["cases"]:

        def part(kind: str, prefix: str = case["id"]) -> dict[str, Tensor]:
            start = f"{prefix}.{kind}."
            return {
                k.removeprefix(start): torch.from_numpy(stored[k])
                for k in stored.files
                if k.startswith(start)
            }

        expected, made = part("out"), METHODS[case["method"]](part("in"), case["params"])
        if set(case["outputs"]) != expected.keys():
            raise AssertionError(f"{case['id']}: {sorted(expected)} is stored")
        worst = max(_difference(made[k], expected[k]) for k in expected)
        yield case["method"], case["id"], worst, float(case["tol"])


def _difference(made: Tensor, expected: Tensor) -> float:
    if made.shape != expected.shape:
        return float("inf")
    gap = (made - expected).abs()
    return float(gap.nan_to_num(nan=float("inf")).max()) if gap.numel() else 0.0


def _pcb(arrays: Arrays, params: Params) -> dict[str, Tensor]:
    tau = arrays["tau"]
    how = {k: params[k] for k in ("ratio", "winsor", "inter")}
    origin = torch.zeros_like(tau[0])
    return {
        "merged": competed(tau, origin, [1.0] * len(tau), params["lam"], **how),
        "scale": balance(tau, origin, **how)[0],
    }


def _widen(arrays: Arrays, params: Params) -> dict[str, Tensor]:
    merged = disentangled(arrays["fts"], arrays["base"], s=params["s"], t=params["t"], scale=1.0)
    return {"merged": merged}


def _darex(arrays: Arrays, params: Params) -> dict[str, Tensor]:
    exponent = np.log(params["q"]) / np.log(params["keep"])
    return {"out": arrays["delta"] * arrays["mask"] / global_q(params["keep"], exponent)}


def _darex_row_q(arrays: Arrays, params: Params) -> dict[str, Tensor]:
    q = row_q(arrays["c"], drop=params["p"], eta=params["eta"], gamma=params["gamma"])
    phi = [variance_proxy(p) for p in (0.5, 0.9, 0.99)]
    return {"q_scan": q, "q_closed": q, "phi": torch.tensor(phi, dtype=torch.float64)}


def _factors(arrays: Arrays) -> list[Factors]:
    return [Factors(b, a) for b, a in zip(arrays["B"], arrays["A"], strict=True)]


def _evo_published(arrays: Arrays, params: Params) -> dict[str, Tensor]:
    made = separate_sums(_factors(arrays), params["alpha"], params["beta"])
    return {"A": made.a, "B": made.b, "delta": made.b @ made.a}


def _evo_exact(arrays: Arrays, params: Params) -> dict[str, Tensor]:
    made = sparse_sum(_factors(arrays), params["alpha"], params["beta"])
    return {"delta": made.b @ made.a}


def _bitdelta(arrays: Arrays, params: Params) -> dict[str, Tensor]:
    delta = arrays["ft"] - arrays["base"]
    bits = signs(delta, bits=params["k"], rows=params["axis"] == 1, zero=params["zero_is"])
    return {"out": arrays["base"] + bits}


def _lora_svd(arrays: Arrays, params: Params) -> dict[str, Tensor]:
    parts = [
        Factors(arrays[f"B{i}"] * scaling, arrays[f"A{i}"])
        for i, scaling in enumerate(params["scaling"])
    ]
    whole = weighted_concat(parts, params["w"])
    made, lost = truncate(whole, params["r"])
    # Stored are the singular values left out; what we report is their share of all energy.
    sizes = torch.linalg.svdvals(whole.b @ whole.a)
    tail = sizes[params["r"] : whole.rank]
    if not np.isclose(lost, float(tail.square().sum() / sizes.square().sum()), rtol=1e-12, atol=0):
        raise AssertionError(f"truncate reports {lost} of the energy as left out")
    return {"delta": made.b @ made.a, "tail": tail}


def _exclusive(arrays: Arrays, params: Params) -> dict[str, Tensor]:
    return {"out": claimed(list(arrays["deltas"]), params["keep"], params["order"])}


def _orth_coef(arrays: Arrays, params: Params) -> dict[str, Tensor]:
    previous = arrays["prev"].numpy()
    made = orthogonal_coefficients(previous, np.random.default_rng(0))
    return {
        "dots": torch.from_numpy(previous @ made),
        "norm": torch.tensor(np.linalg.norm(made), dtype=torch.float64),
    }


METHODS: Final[Mapping[str, Callable[[Arrays, Params], dict[str, Tensor]]]] = {
    "pcb": _pcb,
    "widen": _widen,
    "darex": _darex,
    "darex_row_q": _darex_row_q,
    "evo_factors": _evo_published,
    "evo_delta_exact": _evo_exact,
    "bitdelta": _bitdelta,
    "lora_svd": _lora_svd,
    "exclusive_merge": _exclusive,
    "orth_coef": _orth_coef,
}


if __name__ == "__main__":
    for method, case, worst, tolerance in run_cases():
        print(f"{method:16} {case:22} {worst:9.2e} {tolerance:9.2e}")
