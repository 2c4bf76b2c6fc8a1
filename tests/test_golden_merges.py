"""Merges against numbers from reference implementations (mergekit 0.1.4 and 0.1.5)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from golden import make_models
from safetensors.torch import load_file

from operators.materialize import Materializer
from operators.merge import merge
from operators.recipe import Founder
from operators.weights import weights_of

GOLDEN = Path(__file__).parent / "golden"
TABLE = json.loads((GOLDEN / "golden.json").read_text())
# Lists over layers are interpolated (mergekit's gradients); our coefficients have groups as yet.
CASES = [c for c in TABLE["cases"] if c["id"] not in ("slerp_list", "linear_gradient")]


@pytest.fixture(scope="module")
def models() -> dict[str, dict[str, torch.Tensor]]:
    return {
        m: {n: torch.from_numpy(t) for n, t in make_models.tensors(m).items()}
        for m in make_models.MODELS
    }


def test_inputs_are_those_the_references_saw() -> None:
    for model, digests in TABLE["input_sha256_16"].items():
        for name, digest in digests.items():
            assert make_models.sha(make_models.tensor(model, name)) == digest


@pytest.mark.parametrize("case", CASES, ids=[c["id"] for c in CASES])
def test_merge_gives_the_reference_numbers(
    case: dict[str, Any], models: dict[str, dict[str, torch.Tensor]]
) -> None:
    config = yaml.safe_load((GOLDEN / "configs" / Path(case["config"]).name).read_text())
    dtype = getattr(torch, config["dtype"])
    names = [Path(m["model"]).name for m in config["models"]]
    base_name = Path(config["base_model"]).name if "base_model" in config else None
    recipes = {n: Founder(n, "x") for n in {*names, *([base_name] if base_name else [])}}
    per_input = [m.get("parameters", {}) for m in config["models"]]
    params: dict[str, Any] = dict(config.get("parameters", {}))
    for key in {k for p in per_input for k in p}:
        params[key] = tuple(p[key] for p in per_input)
    recipe = merge(
        case["method"],
        [recipes[n] for n in names],
        base=recipes[base_name] if base_name else None,
        params=params,
    )
    founders = {
        r: weights_of({k: t.to(dtype) for k, t in models[n].items()}) for n, r in recipes.items()
    }
    layout = next(iter(founders.values())).layout
    made = Materializer(layout, founders).build(recipe)
    expected = load_file(GOLDEN / "tensors" / Path(case["file"]).name)
    rtol, atol = case["tol"]["rtol"], case["tol"]["atol"]
    for name, want in expected.items():
        stride = TABLE["sample"][name]["flat_stride"]

        def sample(tensor: torch.Tensor, stride: int = stride) -> torch.Tensor:
            return tensor.reshape(-1)[::stride].float()

        assert made[name].dtype == dtype
        error = (sample(made[name]) - want.reshape(-1).float()).abs()
        # The bfloat16 references round every intermediate to bfloat16, so their error is of the size
        # of what they add up, not of the sum: where base and deltas nearly cancel, "2 ulp" are ulps
        # of the operands. Ours is computed in float32 and rounded once.
        operands = torch.stack([sample(f[name]).abs() for f in founders.values()]).amax(dim=0)
        scale = operands if dtype == torch.bfloat16 else want.reshape(-1).abs()
        assert bool((error <= atol + rtol * scale).all()), (name, float(error.max()))
