"""Our merges on the inputs that mergekit saw, and how far they are from what it gave."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from golden import make_models
from safetensors.torch import load_file

from operators.recipe.coefficients import Coefficient, Grouped, Rule, gradient
from operators.recipe.layers import layer_index
from operators.build.materialize import Materializer
from operators.merge import MERGES, merge
from operators.recipe import Founder, Recipe, parts
from operators.tensors.weights import Weights, weights_of

FOLDER = Path(__file__).parent
TABLE: dict[str, Any] = json.loads((FOLDER / "golden.json").read_text())
CASES: list[dict[str, Any]] = TABLE["cases"]
AFTER_LAYERS = ("model.norm.weight", "lm_head.weight")
IN_ULPS = {"bf16_karcher@0.1.5"}


def config_of(path: str) -> dict[str, Any]:
    """mergekit's YAML, as it was given to mergekit."""
    return yaml.safe_load((FOLDER / path).read_text())


@cache
def founders(dtype: torch.dtype) -> dict[Founder, Weights]:
    return {
        Founder(m, "golden"): weights_of(
            {n: torch.from_numpy(t).to(dtype) for n, t in make_models.tensors(m).items()}
        )
        for m in make_models.MODELS
    }


def recipe_of(config: dict[str, Any], seed: int = 0) -> Recipe:
    """The recipe of a config with ``models``; lists over layers become one number for each layer."""
    method = MERGES[config["merge_method"]]
    params = {k: _value(v) for k, v in config.get("parameters", {}).items()}
    each = [m.get("parameters", {}) for m in config["models"]]
    params |= {k: tuple(_value(p[k]) for p in each) for k in {k for p in each for k in p}}
    if "rescale" in params:
        params["rescale"] = "l1" if params["rescale"] else "none"
    base = Founder(Path(config["base_model"]).name, "golden") if "base_model" in config else None
    inputs = [Founder(Path(m["model"]).name, "golden") for m in config["models"]]
    return merge(method.name, inputs, base=base, params=params, seed=seed)


def _value(value: Any) -> Any:
    def numbers(given: Any) -> tuple[float, ...]:
        return gradient(given, make_models.LAYERS) if isinstance(given, list) else (float(given),)

    if not isinstance(value, list):
        return value
    if not isinstance(value[0], dict):
        value = [{"value": value}]
    rules = []
    for entry in value:
        filters = (entry["filter"],) if "filter" in entry else ()
        # mergekit gives the first value of a list to the tensors after the layers too.
        rules += [Rule((*filters, name), numbers(entry["value"])[:1]) for name in AFTER_LAYERS]
        rules.append(Rule(filters, numbers(entry["value"])))
    made: Coefficient = Grouped(tuple(rules))
    return made


def merged(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The whole merged model by mergekit's names."""
    given = founders(getattr(torch, config["dtype"]))
    materializer = Materializer(next(iter(given.values())).layout, given)
    if "slices" not in config:
        return dict(materializer.build(recipe_of(config)).tensors)
    sources = [s["sources"][0] for s in config["slices"]]
    stacked = [
        materializer.build(merge(config["merge_method"], [Founder(Path(s["model"]).name, "golden")]))
        for s in sources
    ]
    made = {n: t for n, t in stacked[-1].tensors.items() if layer_index(n) is None}
    made |= {n: t for n, t in stacked[0].tensors.items() if "embed" in n}
    layer = 0
    for source, part in zip(sources, stacked, strict=True):
        for original in range(*source["layer_range"]):
            for name, tensor in part.tensors.items():
                if layer_index(name) == original:
                    made[name.replace(f".{original}.", f".{layer}.")] = tensor
            layer += 1
    return made


def run_case(
    case: dict[str, Any], made: dict[str, torch.Tensor] | None = None
) -> tuple[float, float]:
    """(worst difference, tolerance) of one case: of absolute differences, save for two kinds.

    ``made`` is the merged model, if it comes from elsewhere than from :func:`merged`.

    The bfloat16 references round every intermediate to bfloat16, so their error is of the size of what
    they add up, not of the sum: where base and deltas nearly cancel, "2 ulp" are ulps of the operands.
    Ours is computed in float32 and rounded once. There the difference, beyond the absolute tolerance,
    is relative to the greatest operand. karcher's reference also loses length in its rounded unit
    vectors (its gate_proj is 0.3 % shorter than its own in float32), so there the difference is in units
    in the last place of the greatest operand: 2, as the note of the tolerance says.

    Where rounding decides whether an element passes a threshold (arcee_fusion), it is the share of
    elements beyond the absolute tolerance.
    """
    config, tolerance = config_of(case["config"]), case["tol"]
    dtype = getattr(torch, config["dtype"])
    used = parts(recipe_of(config)) if "models" in config else ()
    made = merged(config) if made is None else made
    worst, off, elements = 0.0, 0, 0
    for name, want in load_file(FOLDER / case["file"]).items():
        stride = TABLE["sample"].get(name, {}).get("flat_stride", 1)
        if made[name].dtype != dtype or want.dtype != dtype:
            raise TypeError(f"{case['id']}: {name} is {made[name].dtype}, expected {want.dtype}")
        difference = (_sample(made[name], stride) - want.reshape(-1).float()).abs()
        if dtype == torch.bfloat16:
            given = [_sample(founders(dtype)[f][name], stride).abs() for f in used]
            operands = torch.stack(given).amax(dim=0)
            if case["id"] in IN_ULPS:
                difference /= torch.exp2(operands.log2().floor() - 7)
            else:
                difference = (difference - tolerance["atol"]).clamp(min=0.0) / operands
        worst = max(worst, float(difference.max()))
        off += int((difference > tolerance["atol"]).sum())
        elements += difference.numel()
    if "max_mismatch_frac" in tolerance:
        return off / elements, tolerance["max_mismatch_frac"]
    if case["id"] in IN_ULPS:
        return worst, 2.0
    return worst, tolerance["rtol"] if dtype == torch.bfloat16 else tolerance["atol"]


def _sample(tensor: torch.Tensor, stride: int) -> torch.Tensor:
    return tensor.reshape(-1)[::stride].float()


def run_cases() -> Iterator[tuple[str, str, float, float]]:
    """(method, case, worst difference, tolerance) of every case, as :func:`run_case` measures them."""
    for case in CASES:
        unit = ""
        if case["id"] in IN_ULPS:
            unit = " (bfloat16, in ulps)"
        elif case["dtype"] == "bfloat16":
            unit = " (bfloat16, relative)"
        elif "max_mismatch_frac" in case["tol"]:
            unit = " (share of elements off)"
        yield case["method"] + unit, case["id"], *run_case(case)
