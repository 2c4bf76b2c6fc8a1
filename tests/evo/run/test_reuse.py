"""What other runs evaluated is not evaluated again, where it would be the same to the last bit."""

import json
import shutil

import pytest
import yaml
from manifests import change_manifest
from toy_runs import run, tables, task
from toys import toy_config
from warm_evo import evo as evo_command

import evo.lineage
from evo.cli.run import run_config
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.run.evaluation_cache import REUSED


def calls(folder):
    """How often the model was run so far."""
    marker = folder / "calls"
    return marker.stat().st_size if marker.exists() else 0


def counting(folder, **changes):
    folder.mkdir(exist_ok=True)
    data = {"dev": str(folder / "calls")}
    tasks = [{"name": "toy", "metric": "toys:coordinates", "data": data}]
    return toy_config(
        folder / "founders", **{"tasks": tasks, "algorithm": "genome_plus", **changes}
    )


@pytest.fixture
def first(tmp_path):
    run(counting(tmp_path), tmp_path / "runs" / "first")
    return tmp_path


def hosts(run_dir):
    return evo.lineage.open(run_dir).table("evaluations", ["host"]).column("host").to_pylist()


def test_a_run_again_costs_no_evaluation_and_finds_the_same(first):
    before = calls(first)
    run(counting(first, reuse=[first / "runs" / "*"]), first / "again")
    assert calls(first) == before
    assert set(hosts(first / "again")) == {REUSED}
    assert tables(first / "again") == tables(first / "runs" / "first")
    seconds = evo.lineage.open(first / "again").table("evaluations", ["seconds"]).column("seconds")
    assert set(seconds.to_pylist()) == {0.0}


def test_a_longer_run_evaluates_only_what_is_new(first):
    before = calls(first)
    config = counting(first, budget={"evaluations": 90})
    plain = run(config, first / "plain")
    cost = calls(first) - before
    again = run(config.model_copy(update={"reuse": (first / "runs/first",)}), first / "longer")
    assert calls(first) - before - cost == cost - before
    assert tables(first / "longer") == tables(first / "plain")
    assert again.winner == plain.winner
    events = evo.lineage.open(first / "longer").table("events", ["kind", "detail"]).to_pylist()
    notes = [e["detail"] for e in events if e["kind"] == "reuse"]
    assert notes == [f"{first / 'runs/first'}: {before} evaluations can be reused"]


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("versions", {"torch": "another"}, "version of torch"),
        ("code", {"fitness": "another"}, "code in fitness"),
        ("settings", {"engine.dtype": "another"}, "engine.dtype"),
        ("base", "another", "base"),
        ("user_code", {"toys": "another"}, "module toys"),
    ],
)
def test_what_might_score_otherwise_is_not_reused(first, part, value, says):
    change_manifest(first / "runs" / "first", "scores", **{part: value})
    with Evolution(counting(first, reuse=[first / "runs/first"]), first / "again") as evolution:
        assert evolution.reused == (f"{first / 'runs/first'}: not reused: different {says}",)


def test_other_examples_and_other_processors_are_not_reused(first, tmp_path):
    other = [task("nearness", splits=("dev",))]
    run(counting(first, tasks=other, reuse=[first / "runs" / "*"]), first / "other")
    assert REUSED not in hosts(first / "other")
    change_manifest(first / "runs" / "first", "scores", processor="another")
    before = calls(first)
    run(counting(first, reuse=[first / "runs" / "first"]), first / "again")
    assert calls(first) == 2 * before


def test_failures_are_tried_again(tmp_path):
    config = toy_config(tmp_path / "founders", tasks=[task("broken_for_b")])
    run(config, tmp_path / "first")
    run(config.model_copy(update={"reuse": (tmp_path / "first",)}), tmp_path / "again")
    rows = evo.lineage.open(tmp_path / "again").table("evaluations", ["host", "status"]).to_pylist()
    assert {r["host"] == REUSED for r in rows if r["status"] == "failed"} == {False}
    assert REUSED in {r["host"] for r in rows}


def test_no_run_there_is_said_before_anything_starts(tmp_path):
    with pytest.raises(EvoError, match=r"reuse: .*nothing: no run there"):
        Evolution(counting(tmp_path, reuse=[tmp_path / "nothing"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_though_what_it_reused_is_gone(first):
    config = counting(first, reuse=[first / "runs/first"], budget={"evaluations": 90})
    with Evolution(config, first / "run") as evolution:
        next(iter(evolution))
    shutil.rmtree(first / "runs/first")
    with Evolution.resume(first / "run") as evolution:
        assert evolution.reused == (f"{first / 'runs/first'}: not reused: no run there any more",)
        for _ in evolution:
            pass
    run(counting(first, budget={"evaluations": 90}), first / "plain")
    assert tables(first / "run")["population"] == tables(first / "plain")["population"]


def test_a_run_goes_on_though_what_it_reused_is_damaged(first):
    config = counting(first, reuse=[first / "runs/first"], budget={"evaluations": 90})
    with Evolution(config, first / "run") as evolution:
        next(iter(evolution))
    (first / "runs/first/manifest.json").write_text("{")
    with pytest.raises(EvoError, match=r"manifest\.json: damaged"):
        Evolution(config, first / "another")
    with Evolution.resume(first / "run") as evolution:
        (note,) = evolution.reused
        assert "not reused" in note
        assert "manifest.json: damaged" in note


def test_a_pattern_without_runs_is_named(tmp_path):
    config = counting(tmp_path, reuse=[tmp_path / "nothing*"], budget={"evaluations": 5})
    with Evolution(config, tmp_path / "run") as evolution:
        assert evolution.reused == (f"{tmp_path / 'nothing*'}: no run there",)


def test_a_sitting_may_reuse_what_the_first_could_not(first):
    config = counting(first, budget={"evaluations": 90})
    with Evolution(config, first / "run") as evolution:
        next(iter(evolution))
    path = first / "toy.yaml"
    again = config.model_copy(update={"reuse": (first / "runs/first",)})
    path.write_text(yaml.safe_dump(json.loads(again.model_dump_json(exclude_unset=True))))
    run_config(path, first / "run", [], resumes=True)
    assert REUSED in hosts(first / "run")


def test_the_command_line_names_runs_to_reuse(first):
    config = json.loads(counting(first).model_dump_json(exclude_unset=True))
    (first / "toy.yaml").write_text(yaml.safe_dump(config))
    before = calls(first)
    command = ["run", "toy.yaml", "--run-dir", "again", "--reuse", "runs/first"]
    done = evo_command(*command, cwd=first)
    assert done.returncode == 0, done.stderr
    assert f"runs/first: {before} evaluations can be reused" in done.stdout
    assert calls(first) == before
