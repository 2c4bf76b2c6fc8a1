"""Merges against numbers from reference implementations (mergekit 0.1.4 and 0.1.5)."""

from functools import cache
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch
from golden import make_models
from golden.merge_cases import CASES, TABLE, founders, run_case
from models import merged_tensor

from operators.merge.sparsify import keep_probabilities
from operators.recipe import Founder

DRAWS = 2000
Q_PROJ, NORM = "model.layers.1.self_attn.q_proj.weight", "model.layers.1.input_layernorm.weight"
EXPECTED = TABLE["stochastic"]["expected"]["0.1.4"]
DENSITY = {"dare_linear": 0.3, "dare_ties": 0.3, "della_linear": 0.4, "della": 0.4}
EPSILON = 0.2


def test_inputs_are_those_the_references_saw() -> None:
    for model, digests in TABLE["input_sha256_16"].items():
        for name, digest in digests.items():
            assert make_models.sha(make_models.tensor(model, name)) == digest


@pytest.mark.parametrize("case", CASES, ids=[c["id"] for c in CASES])
def test_merge_gives_the_reference_numbers(case) -> None:
    worst, tolerance = run_case(case)
    assert worst <= tolerance


def task_vector(expert: str, name: str) -> torch.Tensor:
    given = founders(torch.float32)
    return given[Founder(expert, "golden")][name] - given[Founder("base", "golden")][name]


def draw(method: str, deltas: list[torch.Tensor], seed: int, **given: Any) -> torch.Tensor:
    """What the method makes of these task vectors; from a base of zeros, so that nothing rounds."""
    if method.startswith("della"):
        given |= {"epsilon": EPSILON}
    given |= {"density": DENSITY[method], "normalize": False}
    return merged_tensor(method, deltas, torch.zeros_like(deltas[0]), seed, **given).reshape(-1)


@cache
def draws(method: str, name: str, rescale: str) -> torch.Tensor:
    """(draws, elements): one expert's thinned task vector, again and again."""
    delta = task_vector("e1", name)
    return torch.stack([draw(method, [delta], seed, rescale=rescale) for seed in range(DRAWS)])


random_methods = pytest.mark.parametrize("method", ["dare_linear", "della_linear"])
both_tensors = pytest.mark.parametrize("name", [Q_PROJ, NORM], ids=["q_proj", "input_layernorm"])


def predicted(method: str, name: str) -> torch.Tensor:
    """The probability that each element is kept, float64."""
    delta, density = task_vector("e1", name), DENSITY[method]
    if method == "dare_linear":
        return torch.full_like(delta, density, dtype=torch.float64).reshape(-1)
    return keep_probabilities(delta, density, EPSILON).double().reshape(-1)


def reference(name: str, method: str, what: str) -> dict[str, float]:
    return EXPECTED[f"{name.split('.')[-2]}|{method}|{what}"]


@random_methods
@both_tensors
def test_elements_are_kept_as_often_as_by_the_reference(method: str, name: str) -> None:
    kept, p = (draws(method, name, "none") != 0).double(), predicted(method, name)
    want = reference(name, method, "norescale")
    assert float(p.mean()) == pytest.approx(want["expected_keep"], abs=1e-7)
    deviation = sqrt(float((p * (1 - p)).sum()) * DRAWS)
    assert abs(float(kept.sum() - p.sum() * DRAWS)) < 4 * deviation
    # Each element by itself: a chi-square of as many degrees of freedom as there are elements.
    chi2 = float(((kept.sum(dim=0) - DRAWS * p).square() / (DRAWS * p * (1 - p))).sum())
    assert abs(chi2 - len(p)) < 4 * sqrt(2 * len(p))
    if method == "della_linear":
        correlation = float(torch.corrcoef(torch.stack([kept.mean(dim=0), p]))[0, 1])
        got = want["corr(kept freq, predicted p)"]
        assert correlation == pytest.approx(got, abs=2e-3)


@random_methods
@both_tensors
def test_what_is_left_is_scaled_as_by_the_reference(method: str, name: str) -> None:
    delta = task_vector("e1", name).reshape(-1)
    made, plain = draws(method, name, "l1").double(), draws(method, name, "none").double()
    scales = made.abs().sum(dim=1) / plain.abs().sum(dim=1)
    ratios = float(delta.double().abs().sum()) / plain.abs().sum(dim=1)
    assert float((scales / ratios - 1).abs().max()) < 1e-6
    want = reference(name, method, "rescale")
    error = want["std_scale"] * sqrt(2 / DRAWS)
    assert abs(float(scales.mean()) - want["mean_scale"]) < 4 * error
    assert float(scales.std()) == pytest.approx(
        want["std_scale"], rel=0.25 if name == NORM else 0.1
    )


@random_methods
@both_tensors
def test_mean_and_variance_are_those_of_the_reference(method: str, name: str) -> None:
    delta, p = task_vector("e1", name).reshape(-1).double(), predicted(method, name)
    made, want = draws(method, name, "none").double(), reference(name, method, "norescale")
    slope = float((made.mean(dim=0) @ delta) / (delta @ delta))
    spread = sqrt(float((delta**4 * p * (1 - p)).sum()) / DRAWS) / float(delta @ delta)
    got = want["slope E[delta_out] on delta"]
    assert abs(slope - got) < 4 * sqrt(2) * spread
    assert float(made.var(dim=0).sum() / (p * (1 - p) * delta**2).sum()) == pytest.approx(
        want["var_ratio vs s^2 p(1-p) d^2"], abs=0.01
    )


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della_linear", "della"])
@both_tensors
def test_three_experts_leave_as_many_zeros_as_in_the_reference(method: str, name: str) -> None:
    deltas, seeds = [task_vector(e, name) for e in ("e1", "e2", "e3")], 200
    made = [draw(method, deltas, seed, weight=(0.5, 0.3, 0.4)) for seed in range(seeds)]
    zeros = [float((m == 0).float().mean()) for m in made]
    want = reference(name, method, "3exp MC")["zero_frac peer"]
    error = sqrt(2 * want * (1 - want) / (seeds * deltas[0].numel()))
    assert abs(float(np.mean(zeros)) - want) < 4 * error
