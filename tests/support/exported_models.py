"""Models as a host runs them, and their logits, to compare exports with."""

import torch

from cluster.host.builder import Builder
from fitness.engines import EngineSpec, engine_kind

NAMES = ("base", "a", "b")


def logits_of(model, text="12+3=15 abc"):
    ids = torch.tensor(
        [[4 + "0123456789abcdefghijklmnopqrstuvwxyz =+<>.,?!\n".index(c) for c in text]]
    )
    with torch.no_grad():
        return model(ids).logits


def as_the_host_runs_it(recipe, founders, dtype=""):
    """The model as a host has it while it is scored."""
    builder = Builder(founders.base, founders.founders, dtype=dtype)
    engine = engine_kind("hf").make(EngineSpec(dtype=dtype), founders.base.path)
    engine.install(builder.build(recipe))
    return engine.model
