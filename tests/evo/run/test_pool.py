"""The pool of a run: its default, and one of the user's own for several runs."""

import importlib.util

import pytest
import torch
from places import ROOT
from toys import toy_config, write_founders

import evo
from cluster.local_pool import LocalPool
from evo.errors import EvoError
from evo.run.pool import pool_kind


@pytest.fixture
def founders(tmp_path):
    folder = tmp_path / "founders"
    write_founders(folder)
    return folder


@pytest.mark.parametrize(
    ("pool", "kind"),
    [
        ({}, "local"),
        ({"kind": "ray"}, "ray"),
        ({"kind": "local", "hosts": 3}, "local"),
        ({"hosts": 2}, "ray"),
        ({"hosts": "auto"}, "ray"),
        ({"address": "auto"}, "ray"),
        ({"memory_gib": 1.0}, "ray"),
    ],
)
def test_the_pool_is_local_unless_a_key_asks_for_ray(founders, pool, kind):
    config = toy_config(founders, pool=pool)
    assert pool_kind(config) == kind
    again = evo.RunConfig.model_validate_json(config.model_dump_json())
    assert pool_kind(again) == kind


@pytest.mark.parametrize("visible", [False, True])
def test_a_gpu_is_used_through_ray_if_this_machine_has_one(founders, visible, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: visible)
    engine = {"kind": "module", "build": "toys:build", "device": "cuda"}
    config = toy_config(founders, pool={}, engine=engine)
    assert pool_kind(config) == ("ray" if visible else "local")


def test_prometheus_needs_ray_and_gets_it_by_default(founders):
    assert pool_kind(toy_config(founders, pool={}, trackers={"prometheus": {}})) == "ray"


def test_the_example_runs_two_seeds_on_one_pool(founders, tmp_path, capsys):
    path = ROOT / "examples" / "shared_pool.py"
    module = importlib.util.module_from_spec(
        spec := importlib.util.spec_from_file_location("shared_pool", path)
    )
    spec.loader.exec_module(module)
    module.main(toy_config(founders), tmp_path / "shared")
    assert capsys.readouterr().out.count("best fitness on dev") == 2
    config = toy_config(founders, seed=2)
    with evo.Evolution(config, tmp_path / "alone") as alone:
        for _ in alone:
            pass
        alone.finish()
    shared, own = (evo.lineage.open(tmp_path / n) for n in ("shared/seed-2", "alone"))
    assert shared.best() == own.best()
    assert shared.individuals["id"].to_pylist() == own.individuals["id"].to_pylist()


def test_a_pool_can_be_made_for_a_run_to_resume_and_closes_twice(founders, tmp_path):
    config = toy_config(founders)
    with evo.Evolution(config, tmp_path / "run") as run:
        next(iter(run))
    pool = evo.make_pool(config, tmp_path / "run")
    assert isinstance(pool, LocalPool)
    with pool, evo.Evolution.resume(tmp_path / "run", pool=pool) as run:
        for _ in run:
            pass
        run.finish()
    pool.close()


def test_a_pool_of_ones_own_needs_a_number_of_batch_tokens(founders, tmp_path):
    engine = {"kind": "hf", "batch_tokens": "auto"}
    with pytest.raises(EvoError, match=r"engine\.batch_tokens: .* a number"):
        evo.make_pool(toy_config(founders, engine=engine), tmp_path / "run")
