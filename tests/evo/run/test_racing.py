"""Racing: who is dropped, that it is right to drop them, and that it is the same however a run goes."""

import signal
import subprocess
from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
import pytest
from docs_world import SIZES, build_world
from hypothesis import given
from hypothesis import strategies as st
from interrupted_runs import CLI, Stop, environment, pool_for, recorded_in, resume, stopped_run
from patience import PATIENCE_S
from pydantic import ValidationError
from toy_runs import run, task
from toys import toy_config
from warm_evo import evo as evo_command

import evo.lineage
from evo import RunConfig
from evo.cli.lineage import show
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.lineage.storage.journal import Journal
from evo.report.facts import facts
from evo.report.status import read_status
from evo.reproduce.verify import verify
from fitness.racing import beaten, evidence, example_order, rung_ends

# The arithmetic


def means_above(differences, total, margin=0.0):
    """The evidence after all of ``differences``, of scores of 0 and 1."""
    found = evidence(
        np.asarray(differences, float)[None],
        total=total,
        reach=np.ones(1),
        margin=np.full(1, margin),
    )
    return float(found[0])


def test_a_few_wins_prove_little():
    """Of values that are all alike the variance seems to be 0."""
    assert means_above([1] * 3, 200) < 20 < means_above([1] * 9, 200)
    assert means_above([1, 0, 0, 1, 0, 1, 0, 0], 200) < 20
    assert means_above([-1] * 9, 200) < 1


def test_what_is_certain_is_found_out():
    """The rest can't make up for a lead of 30 with 20 to come."""
    assert means_above([1] * 30, 50) > 1e6


@pytest.mark.parametrize("tied", [0.0, 0.6, 0.95])
@pytest.mark.parametrize("total", [40, 200])
def test_equals_are_seldom_called_better_at_any_rung(total, tied):
    """At most 5 % of the time, over all rungs together, for a confidence of 95 %."""
    rng = np.random.default_rng(0)
    wins = round(total * (1 - tied) / 2)
    values = np.array([1.0] * wins + [-1.0] * wins + [0.0] * (total - 2 * wins))
    shuffled = rng.permuted(np.tile(values, (4000, 1)), axis=1)
    ever = np.zeros(4000, bool)
    for met in rung_ends(total, (0.125, 0.25, 0.5, 0.75)):
        found = evidence(shuffled[:, :met], total=total, reach=np.ones(4000), margin=np.zeros(4000))
        ever |= found >= 20.0
    assert ever.mean() <= 0.05


def test_a_margin_is_what_must_be_exceeded():
    wins = [1, 1, 0, 1, 1, 1, 0, 1, 1, 1]
    assert means_above(wins, 100) > means_above(wins, 100, 0.3) > means_above(wins, 100, 0.9)


def test_who_can_reach_the_best_is_kept():
    rng = np.random.default_rng(1)
    chances = np.array([0.9, 0.85, 0.5, 0.1])
    values = (rng.random((4, 60)) < chances[:, None]).astype(float)
    how = {"total": 200, "confidence": 0.95, "reach": 1.0, "costs": np.zeros(4)}
    nobody = {"rivals": np.empty((0, 60)), "rival_costs": np.empty(0)}
    assert beaten(values, keeps=1, **nobody, **how).tolist() == [False, False, True, True]
    assert beaten(values, keeps=3, **nobody, **how).tolist() == [False, False, False, True]
    assert not beaten(values, keeps=4, **nobody, **how).any()
    champions = {"rivals": np.ones((3, 60)), "rival_costs": np.zeros(3)}
    assert beaten(values, keeps=3, **champions, **how)[2:].all()


def test_equal_scores_drop_nobody():
    """Also where one has a longer path: the examples have not told yet how far scores can differ."""
    flat = {"rivals": np.empty((0, 9)), "rival_costs": np.empty(0), "total": 90, "confidence": 0.9}
    flat["reach"] = 1.0
    assert not beaten(np.zeros((3, 9)), keeps=1, costs=np.array([0.0, 0.1, 0.2]), **flat).any()


@pytest.mark.parametrize("rare", [1, 2, 10])
def test_what_few_examples_decide_is_waited_for(rare):
    """Most differ by little, and a few that make up for it, of values up to 1, may not have been met."""
    rng = np.random.default_rng(0)
    total, wrong = 200, 0
    values = np.full(total, 0.5)
    values[:rare] += 0.5
    rival = values + 0.5 * rare / (total - rare)  # the two are equal over all examples
    rival[:rare] = 0.5
    for _ in range(300):
        order = rng.permutation(total)
        for met in rung_ends(total, (0.125, 0.25, 0.5, 0.75))[:-1]:
            mine, other = (each[order[:met]][None] for each in (values, rival))
            how = {"total": total, "keeps": 1, "confidence": 0.95, "reach": 1.0}
            lost = beaten(mine, other, costs=np.zeros(1), rival_costs=np.zeros(1), **how)
            if lost.any():
                wrong += 1
                break
    assert wrong <= 15


@given(st.integers(1, 300))
def test_examples_are_met_once_each_in_an_order_of_its_own(count):
    order = example_order(count)
    assert sorted(order) == list(range(count))
    rungs = (0, *rung_ends(count, (0.125, 0.25, 0.5, 0.75)))
    assert rungs[1] > 0
    assert rungs[-1] == count
    assert sorted(rungs) == list(rungs)


def test_the_order_never_changes():
    """Runs go on with it, on whatever machine."""
    assert example_order(8) == (4, 3, 0, 1, 7, 2, 6, 5)


# Runs


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_world(tmp_path_factory.mktemp("world"))


def config_for(world, **more):
    models = world / "models"
    data = {
        "base": models / "base",
        "founders": {name: models / name for name in ("maths", "japanese", "code")},
        "tasks": [{"name": "sums", "files": world / "tasks" / "sums"}],
        "pool": {"kind": "local"},
        "budget": {"evaluations": 40},
        "racing": True,
        "seed": 1,
    }
    return RunConfig.model_validate({**data, **more})


@pytest.fixture(scope="module")
def raced(world, tmp_path_factory):
    """(summary, folder) of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("raced") / "run"
    return run(config_for(world), folder), folder


def dev_rows(folder):
    return (
        evo.lineage.open(folder).table("evaluations", where=pc.field("split") == "dev").to_pylist()
    )


def test_fewer_examples_are_used_and_all_of_it_is_on_record(raced):
    summary, folder = raced
    rows = dev_rows(folder)
    dropped = [r for r in rows if r["status"] == "raced"]
    assert len({r["individual"] for r in rows}) == summary.evaluations == 40
    assert len(dropped) >= 5
    assert {r["examples"] for r in dropped} <= set(
        rung_ends(SIZES["dev"], (0.125, 0.25, 0.5, 0.75))
    )
    assert all(r["examples"] == SIZES["dev"] for r in rows if r["status"] == "ok")
    assert summary.examples == sum(r["examples"] for r in rows) < 0.9 * 40 * SIZES["dev"]
    items = evo.lineage.open(folder).table("items", where=pc.field("split") == "dev").to_pylist()
    for row in dropped:
        mine = [i for i in items if i["individual"] == row["individual"]]
        met = example_order(SIZES["dev"])[: row["examples"]]
        assert [i["example"] for i in mine] == sorted(met)
        assert sum(i["value"] for i in mine) / len(mine) == pytest.approx(row["score"])


def test_no_estimate_is_the_best_of_anything(raced):
    summary, folder = raced
    rows = dev_rows(folder)
    ok = [r for r in rows if r["status"] == "ok"]
    for row in (r for r in rows if r["status"] == "raced"):
        round_ = [r["fitness"] for r in ok if r["generation"] == row["generation"]]
        assert row["fitness"] < max(round_)
    assert summary.winner.id in {r["individual"] for r in ok}
    lineage = evo.lineage.open(folder)
    assert lineage.best_so_far().column("best")[-1].as_py() == max(r["fitness"] for r in ok)
    selected = lineage.table("evaluations", where=pc.field("split") == "select")
    dropped = {r["individual"] for r in rows if r["status"] == "raced"}
    assert not dropped & set(selected.column("individual").to_pylist())


def test_founders_meet_all_examples(raced):
    assert all(r["status"] == "ok" for r in dev_rows(raced[1]) if r["generation"] == 0)


def test_a_raced_run_verifies_to_the_last_bit(raced):
    found = verify(raced[1], sample=None)
    assert found.same, [c.differences for c in found.checked if c.differences]
    assert len(found.checked) == 40


def test_what_reads_a_lineage_reads_a_raced_one(raced):
    summary, folder = raced
    state = read_status(folder)
    assert (state.state, state.evaluations, state.failed) == ("finished", 40, 0)
    cost = facts(evo.lineage.open(folder))["cost"]
    assert next(s for s in cost["splits"] if s["split"] == "dev")["examples"] == summary.examples


def test_the_dropped_are_compared_on_what_they_met(raced):
    folder = raced[1]
    dropped = next(r for r in dev_rows(folder) if r["status"] == "raced")
    found = evo.lineage.open(folder).compare(dropped["individual"], "best")
    assert found.items.num_rows == dropped["examples"]


def test_the_dropped_are_shown_with_what_they_scored(raced, capsys):
    dropped = next(r for r in dev_rows(raced[1]) if r["status"] == "raced")
    show.callback(raced[1], dropped["individual"])
    score = f"sums dev: {dropped['score']:.3f} ± {dropped['standard_error']:.3f}"
    assert f"{score}, dropped after {dropped['examples']} examples" in capsys.readouterr().out


@pytest.mark.parametrize("after", [1, 19, 60])
def test_a_run_that_was_stopped_in_a_race_ends_as_one_that_was_not(after, raced, world, tmp_path):
    config = config_for(world)
    stopped_run(config, tmp_path / "run", after)
    read_status(tmp_path / "run")
    again = pool_for(config, tmp_path / "again", 10_000)
    summary = resume(tmp_path / "run", pool=again)
    assert recorded_in(tmp_path / "run") == recorded_in(raced[1])
    assert summary.examples == raced[0].examples
    whole = pool_for(config, tmp_path / "whole", 10_000)
    run(config, tmp_path / "whole", pool=whole)
    assert again.taken == whole.taken - after  # no rung is run twice


@pytest.mark.parametrize("commit", [2, 4])
def test_a_run_that_was_stopped_just_after_a_commit_goes_on(
    commit, raced, world, tmp_path, monkeypatch
):
    """Its journal still has the rungs of those whose races are committed."""
    left = [commit]

    def stop(journal):
        left[0] -= 1
        if left[0] < 0:
            raise Stop
        reset(journal)

    with monkeypatch.context() as patch:
        reset = Journal.reset
        patch.setattr(Journal, "reset", stop)
        with pytest.raises(Stop):
            run(config_for(world), tmp_path / "run")
    resume(tmp_path / "run")
    assert recorded_in(tmp_path / "run") == recorded_in(raced[1])


@pytest.mark.slow
def test_a_killed_command_goes_on_with_its_race(raced, world, tmp_path):
    path, run_dir = tmp_path / "run.yaml", tmp_path / "run"
    path.write_text(config_for(world).model_dump_json())
    command = [*CLI, "run", str(path), "--run-dir", str(run_dir)]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)
    while not (run_dir / "lineage" / "commits" / "000002.json").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=PATIENCE_S)
    assert read_status(run_dir).state == "stopped"
    done = evo_command("resume", run_dir)
    assert done.returncode == 0, done.stderr
    assert recorded_in(run_dir) == recorded_in(raced[1])


@pytest.mark.slow
def test_hosts_change_nothing(raced, world, tmp_path, ray_session):
    pool = {"kind": "ray", "hosts": 2, "address": "auto"}
    run(config_for(world, pool=pool), tmp_path / "run")
    assert recorded_in(tmp_path / "run") == recorded_in(raced[1])


@pytest.mark.parametrize("name", ["genome", "genome_plus", "path_ga", "dataflow", "sequence"])
def test_every_kind_of_search_races(name, world, tmp_path):
    """With little confidence, so that a few examples are enough to drop somebody."""
    algorithm = {"name": name}
    if name.startswith("genome"):
        algorithm |= {"population": 3, "crossover_rate": 1.0, "individual_mutation_rate": 1.0}
        algorithm |= {"sigma": 0.3}
    if name == "path_ga":
        algorithm |= {"population": 3}
    if name == "sequence":
        algorithm |= {"stages": ["recipe_search", "dataflow"]}
    config = config_for(
        world, algorithm=algorithm, racing={"confidence": 0.5}, budget={"evaluations": 25}
    )
    summary = run(config, tmp_path / "run")
    rows = dev_rows(tmp_path / "run")
    assert any(r["status"] == "raced" for r in rows)
    assert summary.examples == sum(r["examples"] for r in rows)
    found = next(r for r in rows if r["individual"] == summary.winner.id)
    assert found["status"] == "ok"


def test_a_move_of_genome_plus_meets_all_examples(world, tmp_path):
    """It takes its individual's place whatever it scores."""
    algorithm = {"name": "genome_plus", "population": 3, "crossover_rate": 1.0}
    config = config_for(
        world, algorithm=algorithm, racing={"confidence": 0.5}, budget={"evaluations": 25}
    )
    run(config, tmp_path / "run")
    people = evo.lineage.open(tmp_path / "run").table("individuals").to_pylist()
    moves = {p["id"] for p in people if p["operator"] == "succession"}
    assert moves
    rows = dev_rows(tmp_path / "run")
    assert {r["status"] for r in rows if r["individual"] in moves} == {"ok"}


def test_tasks_of_different_sizes_share_the_rungs(world, tmp_path):
    tasks = [
        {"name": "sums", "files": world / "tasks" / "sums"},
        {"name": "few", "files": world / "tasks" / "sums", "limit": {"dev": 3}, "weight": 0.5},
    ]
    config = config_for(world, tasks=tasks, racing={"confidence": 0.5})
    run(config, tmp_path / "run")
    rows = dev_rows(tmp_path / "run")
    dropped = [r for r in rows if r["status"] == "raced" and r["task"] == "sums"]
    assert dropped
    few = {r["individual"]: r for r in rows if r["task"] == "few"}
    for row in dropped:
        share = row["examples"] / SIZES["dev"]
        assert few[row["individual"]]["examples"] == rung_ends(3, (share,))[0]
    assert verify(tmp_path / "run", sample=None).same


@pytest.mark.parametrize("count", [2, 3, 4])
def test_few_examples_make_few_rungs(count, world, tmp_path):
    """No rung is without examples, whatever the shares."""
    tasks = [{"name": "sums", "files": world / "tasks" / "sums", "limit": {"dev": count}}]
    config = config_for(world, tasks=tasks, racing={"confidence": 0.5}, budget={"evaluations": 20})
    assert run(config, tmp_path / "run").evaluations == 20
    assert verify(tmp_path / "run", sample=None).same


def test_without_racing_all_is_as_it_was(world, tmp_path):
    config = config_for(world, racing=None, budget={"evaluations": 20})
    summary = run(config, tmp_path / "run")
    assert summary.examples == 20 * SIZES["dev"]
    assert {r["status"] for r in dev_rows(tmp_path / "run")} == {"ok"}


class FailsLate:
    """A LocalPool where each candidate with an even id fails after the first rung."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def wait(self, keys=None):
        result = self.inner.wait(keys)
        part = result.job.queries[0].part
        late = part is not None and part[0] > 0
        if late and int(result.job.recipe.id, 16) % 2 == 0:
            return replace(result, results=(), error="overflow")
        return result


def test_who_fails_on_a_late_example_has_failed(world, tmp_path):
    config = config_for(world)
    pool = FailsLate(pool_for(config, tmp_path / "run", 10_000))
    run(config, tmp_path / "run", pool=pool)
    rows = [r for r in dev_rows(tmp_path / "run") if r["generation"] > 0]
    failed = [r for r in rows if r["status"] == "failed"]
    assert failed
    assert all(int(r["individual"], 16) % 2 == 0 and r["fitness"] is None for r in failed)
    assert all(int(r["individual"], 16) % 2 == 1 for r in rows if r["status"] == "ok")


# What is refused


def test_what_has_no_rounds_or_no_single_examples_does_not_race(world, tmp_path):
    with pytest.raises(ValidationError, match="loop: generational, or remove racing"):
        config_for(world, loop="steady_state")
    with pytest.raises(ValidationError, match="ascending"):
        config_for(world, racing={"rungs": [0.5, 0.25]})
    with pytest.raises(EvoError, match="task 'toy' is scored by a function of all its examples"):
        Evolution(toy_config(tmp_path, racing=True, tasks=[task()]), tmp_path / "run")
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_race_again_costs_no_evaluation_and_finds_the_same(raced, world, tmp_path):
    config = config_for(world, reuse=[raced[1]])
    run(config, tmp_path / "run")
    assert {r["host"] for r in dev_rows(tmp_path / "run")} == {"reused"}
    assert [r["fitness"] for r in dev_rows(tmp_path / "run")] == [
        r["fitness"] for r in dev_rows(raced[1])
    ]
    values = [
        evo.lineage.open(folder).table("items", ["individual", "example", "value", "answer"])
        for folder in (tmp_path / "run", raced[1])
    ]
    assert values[0].equals(values[1])


def test_others_reuse_no_part_of_a_race(raced, world, tmp_path):
    """Neither the values that were never asked for, nor those of other batches."""
    config = config_for(world, racing=None, reuse=[raced[1]], budget={"evaluations": 12})
    run(config, tmp_path / "run")
    plain = config_for(world, racing=None, budget={"evaluations": 12})
    run(plain, tmp_path / "plain")
    values = [
        evo.lineage.open(tmp_path / name).table("items", ["individual", "example", "value"])
        for name in ("run", "plain")
    ]
    assert values[0].equals(values[1])
    assert all(r["host"] != "reused" for r in dev_rows(tmp_path / "run"))


def test_an_extended_race_keeps_what_was_committed(world, tmp_path):
    config, folder = config_for(world, budget={"evaluations": 20}), tmp_path / "run"
    run(config, folder)
    before = evo.lineage.open(folder).table("evaluations").to_pylist()
    with Evolution.extend(folder, evaluations=50) as evolution:
        for _ in evolution:
            pass
        assert evolution.finish().evaluations == 50
    after = evo.lineage.open(folder).table("evaluations").to_pylist()
    keys = [(r["individual"], r["task"], r["split"]) for r in after]
    assert len(keys) == len(set(keys))
    assert all(row in after for row in before)
