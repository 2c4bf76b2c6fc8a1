"""Shared by tests: taken out of test_export."""

import torch

from cluster.host.model_host import ModelHost
from cluster.jobs import EngineSpec, HostSpec

NAMES = ("base", "a", "b")


def logits_of(model, text="12+3=15 abc"):
    ids = torch.tensor(
        [[4 + "0123456789abcdefghijklmnopqrstuvwxyz =+<>.,?!\n".index(c) for c in text]]
    )
    with torch.no_grad():
        return model(ids).logits


def as_the_host_runs_it(recipe, founders, dtype=""):
    """The model as a host has it while it is scored."""
    spec = HostSpec(founders.base, founders.founders, EngineSpec(dtype=dtype), {})
    host = ModelHost(spec)
    host._engine.install(host._builder.build(recipe))
    return host._engine.model
