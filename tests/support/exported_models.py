"""Shared by tests: taken out of test_export."""

import pytest
import torch
from tiny_lm import build_model, save

from cluster.founders.checkpoints import (
    load_founders,
)
from cluster.host.model_host import ModelHost
from cluster.jobs import EngineSpec, HostSpec

NAMES = ("base", "a", "b")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Three tiny random Llamas as ordinary checkpoints."""
    folder = tmp_path_factory.mktemp("llamas")
    return {n: save(folder / n, build_model("llama", seed=i)) for i, n in enumerate(NAMES)}


@pytest.fixture(scope="module")
def founders(checkpoints):
    return load_founders(checkpoints["base"], {n: checkpoints[n] for n in "ab"})


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
