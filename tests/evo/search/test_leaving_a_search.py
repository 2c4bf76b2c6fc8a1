"""Leaving a search early: by break, by an exception, by closing; on a pool that others use after it."""

import pytest
from toy_runs import NAMES, rows, run, tables
from toys import toy_config

import evo.lineage
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.run.pool import start_pool
from evo.run.setup import load_tasks, open_founders
from evo.run_dir import RunDir

LOOPS = ["generational", {"kind": "steady_state", "in_flight": 8}]


@pytest.fixture(scope="module")
def founders(tmp_path_factory):
    return tmp_path_factory.mktemp("founders")


def config_for(founders, name, loop, seed=5):
    return toy_config(
        founders, algorithm={"name": name}, loop=loop, budget={"evaluations": 40}, seed=seed
    )


def pool_for(config, folder):
    models, _ = open_founders(config, RunDir(folder))
    return start_pool(config, models, load_tasks(config.tasks))


@pytest.mark.parametrize("loop", LOOPS, ids=["generational", "steady_state"])
@pytest.mark.parametrize("name", NAMES)
def test_a_search_left_by_break_is_finished_with_all_that_was_evaluated(
    name, loop, founders, tmp_path
):
    config = config_for(founders, name, loop)
    pool = pool_for(config, tmp_path / "run")
    with Evolution(config, tmp_path / "run", pool=pool) as evolution:
        for generation in evolution:
            if generation.number == 1:
                break
        summary = evolution.finish()
    assert summary.stopped_by == "caller"
    dev = [r for r in rows(tmp_path / "run") if r["split"] == "dev"]
    assert len({r["individual"] for r in dev}) == summary.evaluations < 40
    assert pool.pending == 0
    found = evo.lineage.open(tmp_path / "run").table("evaluations").to_pylist()
    scores = {r["individual"]: r["score"] for r in found if r["split"] == "dev"}
    assert summary.winner.dev == max(scores[r["individual"]] for r in dev)


@pytest.mark.parametrize("loop", LOOPS, ids=["generational", "steady_state"])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_on_the_pool_of_an_interrupted_run_is_as_on_a_pool_of_its_own(
    name, loop, founders, tmp_path
):
    def interrupt(progress):
        if progress.evaluations == 5:
            raise KeyboardInterrupt

    first, second = (config_for(founders, name, loop, seed) for seed in (1, 2))
    pool = pool_for(first, tmp_path / "first")
    with pytest.raises(KeyboardInterrupt):
        run(first, tmp_path / "first", pool=pool, observe=interrupt)
    run(second, tmp_path / "second", pool=pool)
    run(second, tmp_path / "alone")
    assert tables(tmp_path / "second") == tables(tmp_path / "alone")


@pytest.mark.parametrize("loop", LOOPS, ids=["generational", "steady_state"])
def test_a_search_left_by_break_and_iterated_again_goes_on(loop, founders, tmp_path):
    config = config_for(founders, "genome", loop)
    with Evolution(config, tmp_path / "run") as evolution:
        for generation in evolution:
            if generation.number == 1:
                break
        for _ in evolution:
            pass
        evolution.finish()
    run(config, tmp_path / "whole")
    assert tables(tmp_path / "run") == tables(tmp_path / "whole")


@pytest.mark.parametrize("loop", LOOPS, ids=["generational", "steady_state"])
def test_two_runs_that_take_turns_on_one_pool_are_as_on_pools_of_their_own(
    loop, founders, tmp_path
):
    configs = [config_for(founders, "recipe_search", loop, seed) for seed in (1, 2)]
    pool = pool_for(configs[0], tmp_path / "0")
    with (
        Evolution(configs[0], tmp_path / "0", pool=pool) as one,
        Evolution(configs[1], tmp_path / "1", pool=pool) as two,
    ):
        for _ in zip(one, two, strict=False):
            pass
        for evolution in (one, two):
            for _ in evolution:
                pass
            evolution.finish()
    for number, config in enumerate(configs):
        run(config, tmp_path / f"alone-{number}")
        assert tables(tmp_path / str(number)) == tables(tmp_path / f"alone-{number}")


def test_what_has_finished_or_is_closed_does_nothing_more(founders, tmp_path):
    config = config_for(founders, "genome", "generational")
    with Evolution(config, tmp_path / "run") as evolution:
        next(iter(evolution))
        evolution.finish()
        with pytest.raises(EvoError, match=r"has finished, .* Evolution\.extend"):
            next(iter(evolution))
    before = tables(tmp_path / "run")
    with pytest.raises(EvoError, match=r"is closed, .* Evolution\.resume"):
        evolution.finish()
    with pytest.raises(EvoError, match=r"is closed, .* Evolution\.resume"):
        next(iter(evolution))
    assert tables(tmp_path / "run") == before
