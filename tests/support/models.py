"""Tiny models for tests of operators: a few tensors, named like a two-layer Llama's."""

from typing import Any

import torch

from operators.build.materialize import Materializer
from operators.merge import MERGES
from operators.merge.table import Values
from operators.recipe import Founder, Recipe
from operators.tensors.weights import Weights, weights_of

SHAPES = {
    "model.embed_tokens.weight": (7, 4),
    "model.layers.0.self_attn.q_proj.weight": (4, 4),
    "model.layers.0.mlp.up_proj.weight": (6, 4),
    "model.layers.1.self_attn.q_proj.weight": (4, 4),
    "model.layers.1.mlp.up_proj.weight": (6, 4),
    "model.norm.weight": (4,),
}
BASE = Founder("base", "0")
A, B, C = (Founder(name, "0") for name in "abc")


def model(seed: int, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return weights_of(
        {n: (scale * torch.randn(s, generator=generator)).to(dtype) for n, s in SHAPES.items()}
    )


def founders(dtype: torch.dtype = torch.float32) -> dict[Founder, Weights]:
    """base, and three models near it."""
    base = model(0, dtype=dtype)
    near = {}
    for i, founder in enumerate((A, B, C), start=1):
        delta = model(i, 0.1)
        tensors = {n: (t.float() + delta[n]).to(dtype) for n, t in base.tensors.items()}
        near[founder] = weights_of(tensors)
    return {BASE: base, **near}


def built(recipe: Recipe, given: dict[Founder, Weights] | None = None) -> Weights:
    given = given or founders()
    return Materializer(given[BASE].layout, given).build(recipe)


def same(a: Weights, b: Weights) -> bool:
    """Bit for bit."""
    return all(torch.equal(a[n], b[n]) for n in a.layout.names)


def close(a: Weights, b: Weights, atol: float = 1e-6) -> bool:
    return all(torch.allclose(a[n], b[n], rtol=1e-5, atol=atol) for n in a.layout.names)


def merged_tensor(
    method: str, inputs: list[torch.Tensor], base: torch.Tensor | None, seed: int = 0, **given: Any
) -> torch.Tensor:
    """One tensor's merge with the method's defaults and ``given``; one value may stand for all inputs."""
    values = {}
    for parameter in MERGES[method].parameters:
        value = given.pop(parameter.name, parameter.default)
        spread = parameter.per_input and not isinstance(value, tuple)
        values[parameter.name] = (value,) * len(inputs) if spread else value
    if given:
        raise TypeError(f"{method} has no {', '.join(given)}")
    return MERGES[method].function(inputs, base, Values(values), seed, "x")
