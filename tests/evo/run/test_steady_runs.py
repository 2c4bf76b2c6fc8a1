"""Steady state: no host waits for a slower one, and a replay follows the order that was recorded."""

import random

import pytest
from interrupted_runs import Stop, results, resume
from reordered_pools import ReorderedPool
from toy_runs import NAMES, rows, run
from toys import toy_config

import evo.lineage
from cluster.local_pool import LocalPool
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.run.pool import start_pool
from evo.run.setup import load_tasks, open_founders
from evo.run_dir import RunDir


class ShufflingPool(ReorderedPool):
    """Its jobs end in an order of their own; interrupted at the n-th, if asked to be."""

    def __init__(self, inner: LocalPool, seed: int, after: int = 10**9) -> None:
        super().__init__(inner, random.Random(seed).choice)
        self.left = after
        self.hosts = 4
        self.most = 0

    def wait(self, keys=None):
        if self.left == 0:
            raise Stop
        self.left -= 1
        self.most = max(self.most, len(self.keys))
        return super().wait(keys)


def pool_for(config, run_dir, seed, after=10**9):
    founders, _ = open_founders(config, RunDir(run_dir))
    return ShufflingPool(start_pool(config, founders, load_tasks(config.tasks)), seed, after)


def steady(folder, name="recipe_search", **more):
    more = {"loop": "steady_state", "seed": 5, "budget": {"evaluations": 40}} | more
    return toy_config(folder, algorithm={"name": name}, **more)


@pytest.fixture(scope="module")
def founders(tmp_path_factory):
    return tmp_path_factory.mktemp("founders")


def dev(run_dir):
    """Who was evaluated, in the order told, with what came of it."""
    return [(r["individual"], r["score"]) for r in rows(run_dir) if r["split"] == "dev"]


def population(run_dir):
    return evo.lineage.open(run_dir).population.to_pylist()


@pytest.mark.parametrize("name", NAMES)
def test_the_budget_is_kept_and_every_host_has_work(name, founders, tmp_path):
    config = steady(founders, name)
    pool = pool_for(config, tmp_path / "run", seed=1)
    summary = run(config, tmp_path / "run", pool=pool)
    assert summary.evaluations == len(dev(tmp_path / "run")) == 40
    assert summary.stopped_by == "evaluations"
    assert pool.most == 8  # two for each of four hosts
    assert summary.winner.test >= max(b.test for b in summary.baselines if b.kind == "founder")


@pytest.mark.parametrize("after", [0, 2, 3, 9, 20, 39, 41, 46])
@pytest.mark.parametrize("name", ["recipe_search", "genome_plus", "random_search"])
def test_a_replay_follows_the_order_recorded(name, after, founders, tmp_path):
    """However the pool orders what is left: what was told before stays told, and decides the same."""
    config, run_dir = steady(founders, name), tmp_path / "run"
    with pytest.raises(Stop):
        run(config, run_dir, pool=pool_for(config, run_dir, 1, after))
    recorded = evo.lineage.open(run_dir)
    before, alive = dev(run_dir), recorded.population.to_pylist()
    summary = resume(run_dir, pool=pool_for(config, run_dir, 2))
    assert summary.evaluations == 40
    assert dev(run_dir)[: len(before)] == before
    assert population(run_dir)[: len(alive)] == alive
    if after >= 41:  # the search was over: all of it is the past
        whole = run(config, tmp_path / "whole", pool=pool_for(config, tmp_path / "whole", 1))
        assert results(summary) == results(whole)
        assert dev(run_dir) == dev(tmp_path / "whole")
        assert population(run_dir) == population(tmp_path / "whole")


def test_stopping_again_and_again_with_other_orders_loses_nothing(founders, tmp_path):
    config, run_dir = steady(founders), tmp_path / "run"
    with pytest.raises(Stop):
        run(config, run_dir, pool=pool_for(config, run_dir, 0, 4))
    for seed in range(1, 8):
        with pytest.raises(Stop):
            resume(run_dir, pool=pool_for(config, run_dir, seed, 5))
    assert resume(run_dir, pool=pool_for(config, run_dir, 9)).evaluations == 40
    ids = [individual for individual, _ in dev(run_dir)]
    assert len(set(ids)) == len(ids) == 40


def test_how_many_are_in_flight_is_fixed_when_the_run_begins(founders, tmp_path):
    config, run_dir = steady(founders), tmp_path / "run"
    with pytest.raises(Stop):
        run(config, run_dir, pool=pool_for(config, run_dir, 1, 12))
    more = pool_for(config, run_dir, 2)
    more.hosts = 32
    resume(run_dir, pool=more)
    assert more.most == 8


def test_the_same_order_gives_the_same_run(founders, tmp_path):
    config = steady(founders)
    for seed, name in ((1, "a"), (1, "b"), (2, "c")):
        run(config, tmp_path / name, pool=pool_for(config, tmp_path / name, seed))
    assert dev(tmp_path / "a") == dev(tmp_path / "b") != dev(tmp_path / "c")
    assert population(tmp_path / "a") == population(tmp_path / "b")


@pytest.mark.parametrize("name", ["recipe_search", "random_search", "cross_entropy"])
def test_one_in_flight_is_the_generational_search(name, founders, tmp_path):
    one = steady(founders, name, loop={"kind": "steady_state", "in_flight": 1})
    first = run(one, tmp_path / "one")
    whole = steady(founders, name, loop="generational")
    assert results(first) == results(run(whole, tmp_path / "whole"))
    assert dev(tmp_path / "one") == dev(tmp_path / "whole")


@pytest.mark.parametrize(
    ("budget", "reason"),
    [({"generations": 3}, "generations"), ({"target": 0.9, "evaluations": 200}, "target")],
)
def test_what_is_in_flight_when_a_budget_ends_is_recorded(budget, reason, founders, tmp_path):
    config = steady(founders, budget=budget)
    with Evolution(
        config, tmp_path / "run", pool=pool_for(config, tmp_path / "run", 1)
    ) as evolution:
        generations = list(evolution)
        summary = evolution.finish()
    assert summary.stopped_by == reason
    assert len(dev(tmp_path / "run")) == summary.evaluations == generations[-1].evaluations


def test_founders_that_all_fail_end_the_run_with_their_error(tmp_path):
    config = steady(
        tmp_path / "f",
        tasks=[{"name": "t", "metric": "toys:never", "data": {"dev": "dev"}}],
    )
    with pytest.raises(EvoError, match=r"every founder failed; the first error: .*no fitness for"):
        run(config, tmp_path / "run")


def test_failures_are_recorded_and_the_run_goes_on(founders, tmp_path):
    config = steady(
        founders,
        tasks=[{"name": "t", "metric": "toys:broken_for_b", "data": {"dev": "dev"}}],
    )
    summary = run(config, tmp_path / "run", pool=pool_for(config, tmp_path / "run", 3))
    assert summary.evaluations == 40
    assert sum(r["status"] == "failed" for r in rows(tmp_path / "run")) >= 1
