"""evo.evolve: models and a fitness function that are in memory."""

import pytest
import torch
from torch import nn

import evo

TARGET = torch.tensor([[3.0, -1.0], [0.5, 2.0]])


def net_of(weight: torch.Tensor) -> nn.Linear:
    net = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(weight)
    return net


BASE = torch.zeros(2, 2)
A = torch.tensor([[3.0, 0.0], [0.5, 0.0]])
B = torch.tensor([[0.0, -1.0], [0.0, 2.0]])


def nearness(net: nn.Module) -> float:
    return -float((net.weight.detach() - TARGET).square().sum())


def by_split(net: nn.Module, split: str) -> torch.Tensor:
    shift = {"dev": 0.0, "select": 0.01, "test": 0.02}[split]
    return torch.exp(-(net.weight - TARGET - shift).square()).flatten()


def evolve(run_dir, fitness=nearness, **more):
    founders = {"a": net_of(A), "b": net_of(B).state_dict()}
    more = {"evaluations": 60, "seed": 1} | more
    return evo.evolve(net_of(BASE), founders, fitness, run_dir=run_dir, **more)


def test_the_winner_beats_every_founder_and_comes_back_as_a_module(tmp_path):
    net = net_of(BASE)
    found = evo.evolve(
        net, {"a": net_of(A), "b": net_of(B)}, nearness, evaluations=60, run_dir=tmp_path / "r"
    )
    assert isinstance(found.net, nn.Linear)
    assert nearness(found.net) > max(nearness(net_of(A)), nearness(net_of(B)))
    assert nearness(found.net) == pytest.approx(found.summary.winner.dev)
    assert torch.equal(net.weight, BASE)


def test_the_run_directory_alone_rebuilds_any_individual(tmp_path):
    found = evolve(tmp_path / "r")
    lineage = evo.lineage.open(found.run_dir)
    recipe = lineage.recipe("best")
    paths = {n: found.run_dir / "models" / f"{n}.safetensors" for n in ("base", "a", "b")}
    founders = evo.open_founders({n: paths[n] for n in "ab"}, base=paths["base"])
    assert torch.equal(evo.build(recipe, founders)["weight"], found.net.weight)


def test_a_function_of_the_split_scores_test_too(tmp_path):
    found = evolve(tmp_path / "r", by_split)
    assert found.summary.winner.test == pytest.approx(by_split(found.net, "test").mean().item())


CALLS = {"left": 0}


def interrupted(net: nn.Module) -> float:
    CALLS["left"] -= 1
    if CALLS["left"] == 0:
        raise KeyboardInterrupt
    return nearness(net)


def test_the_same_call_resumes_a_run_that_was_interrupted_and_returns_one_that_has_finished(
    tmp_path,
):
    whole = evolve(tmp_path / "whole")
    CALLS["left"] = 30
    with pytest.raises(KeyboardInterrupt):
        evolve(tmp_path / "r", interrupted)
    resumed = evolve(tmp_path / "r", interrupted)
    assert resumed.summary.winner == whole.summary.winner
    calls = CALLS["left"]
    assert calls < 0
    again = evolve(tmp_path / "r", interrupted)
    assert again.summary == resumed.summary
    assert torch.equal(again.net.weight, resumed.net.weight)
    assert CALLS["left"] == calls  # nothing is evaluated again


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 9}, "seed"),
        ({"evaluations": 50}, "evaluations"),
        ({"algorithm": "genome"}, "algorithm"),
        ({"fitness": lambda net: 1.0}, "fitness"),
    ],
)
def test_other_arguments_in_the_same_directory_are_refused(tmp_path, change, named):
    evolve(tmp_path / "r")
    with pytest.raises(evo.EvoError, match=f"other arguments than these: {named} differ"):
        evolve(tmp_path / "r", **change)


def test_other_models_in_the_same_directory_are_refused(tmp_path):
    evolve(tmp_path / "r")
    with pytest.raises(evo.EvoError, match=r"other weights for 'a'"):
        evo.evolve(
            net_of(BASE), {"a": net_of(A + 1), "b": net_of(B)}, nearness, run_dir=tmp_path / "r"
        )


def test_a_fitness_of_three_arguments_is_refused(tmp_path):
    with pytest.raises(evo.EvoError, match=r"fitness: .* takes 3 arguments"):
        evolve(tmp_path / "r", lambda net, split, more: 0.0)
    assert not (tmp_path / "r").exists()


def test_models_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(evo.EvoError, match=r"a\.safetensors"):
        evo.evolve(
            net_of(BASE), {"a": nn.Linear(3, 2), "b": net_of(B)}, nearness, run_dir=tmp_path / "r"
        )
