"""Nothing is ever lost: a run that is stopped at any instant goes on as if it had never stopped."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from interrupted_runs import (
    CLI,
    Stop,
    config_for,
    environment,
    pool_for,
    recorded_in,
    results,
    resume,
    stopped_run,
)
from manifests import change_manifest, made_manifest
from patience import PATIENCE_S
from places import SUPPORT
from reordered_pools import ReorderedPool
from safetensors.torch import save_file
from toy_runs import NAMES, rows, run, task
from toys import toy_config
from warm_evo import evo as evo_command

import evo.lineage
from cluster.founders.checkpoints import load_founders
from evo.algorithms import make
from evo.algorithms.random_search import RandomSearch, RandomSearchSettings
from evo.cli.run import run_config
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.lineage.storage.journal import Journal, read_journal
from evo.report.status import read_status
from evo.run.changes import changes
from evo.run.fingerprint import fingerprint
from evo.run.setup import load_tasks
from evo.run_dir import RunDir


@pytest.fixture(scope="module")
def founders(tmp_path_factory):
    return tmp_path_factory.mktemp("founders")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, founders):
    """(results, tables) of each algorithm's run that nothing stopped."""
    made = {}

    def get(name):
        if name not in made:
            run_dir = tmp_path_factory.mktemp(name) / "run"
            summary = run(config_for(founders, name), run_dir)
            made[name] = results(summary), recorded_in(run_dir), run_dir
        return made[name]

    return get


# Replay


INSTANTS = [(n, k) for n in NAMES for k in (1, 8, 33)]
INSTANTS += [("recipe_search", k) for k in (0, 2, 3, 17, 29, 30, 36, 55, 80)]


@pytest.mark.parametrize(("name", "after"), INSTANTS)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(name, after, whole, founders, tmp_path):
    expected, lineage, _ = whole(name)
    stopped_run(config_for(founders, name), tmp_path / "run", after)
    assert results(resume(tmp_path / "run")) == expected
    assert recorded_in(tmp_path / "run") == lineage


def test_a_run_may_be_stopped_again_and_again(whole, founders, tmp_path):
    config = config_for(founders)
    expected, lineage, _ = whole("recipe_search")
    stopped_run(config, tmp_path / "run", 2)
    for _ in range(8):
        with pytest.raises(Stop):
            resume(tmp_path / "run", pool=pool_for(config, tmp_path / "run", 3))
    assert results(resume(tmp_path / "run")) == expected
    assert recorded_in(tmp_path / "run") == lineage


def test_nothing_recorded_is_evaluated_again(whole, founders, tmp_path):
    config = config_for(founders)
    total = 0
    stopped_run(config, tmp_path / "run", 20)
    pool = pool_for(config, tmp_path / "run", 10**6)
    resume(tmp_path / "run", pool=pool)
    total = 20 + pool.taken
    fresh = pool_for(config, tmp_path / "other", 10**6)
    run(config, tmp_path / "other", pool=fresh)
    assert total == fresh.taken


def test_a_torn_last_record_is_dropped_wherever_it_is_torn(whole, founders, tmp_path):
    expected, lineage, _ = whole("recipe_search")
    stopped_run(config_for(founders), tmp_path / "run", 8)
    journal = tmp_path / "run" / "lineage" / "journal.arrows"
    data = journal.read_bytes()
    whole_records = len(read_journal(journal).records)
    for cut in (1, 9, 200, 700, len(data) - 40, len(data)):
        other = tmp_path / f"cut-{cut}"
        shutil.copytree(tmp_path / "run", other)
        (other / "lineage" / "journal.arrows").write_bytes(data[: len(data) - cut])
        assert len(read_journal(other / "lineage" / "journal.arrows").records) < whole_records
        assert results(resume(other)) == expected
        assert recorded_in(other) == lineage


def test_a_commit_that_was_torn_does_not_count_and_is_made_again(
    whole, founders, tmp_path, monkeypatch
):
    """Killed between the files of a commit, or between the commit and the journal's new beginning."""
    expected, lineage, _ = whole("recipe_search")
    journal, reset = b"", Journal.reset

    def reset_after_a_look(self):
        nonlocal journal
        journal = self.path.read_bytes() if self.path.exists() else b""
        reset(self)

    monkeypatch.setattr(Journal, "reset", reset_after_a_look)
    stopped_run(config_for(founders), tmp_path / "run", 12)
    monkeypatch.undo()
    folder = tmp_path / "run" / "lineage"
    last = sorted((folder / "commits").iterdir())[-1].stem
    for left in ([], ["commits"], ["commits", "population"], ["commits", "population", "items"]):
        other = tmp_path / f"left-{len(left)}"
        shutil.copytree(tmp_path / "run", other)
        (other / "lineage" / "journal.arrows").write_bytes(journal)
        for table in left:
            next((other / "lineage" / table).glob(f"{last}.*")).unlink()
        assert results(resume(other)) == expected
        assert recorded_in(other) == lineage


@pytest.mark.parametrize("algorithm", ["recipe_search", "random_search"])
def test_budgets_of_time_and_patience_end_where_they_would_have(algorithm, founders, tmp_path):
    """The clock of a replay is the recorded one: what was decided stays decided."""
    config = toy_config(
        founders, algorithm={"name": algorithm}, budget={"seconds": 0.6}, finalists=20
    )
    with Evolution(config, tmp_path / "run") as evolution:
        counted = [g.evaluations for g in evolution][-1]
    summary = resume(tmp_path / "run")
    assert summary.stopped_by == "seconds"
    assert summary.evaluations == counted


def last_after_a_while(keys):
    time.sleep(0.02)
    return keys[-1]


def test_a_budget_of_time_counts_who_ended_last_and_not_who_was_asked_last(founders, tmp_path):
    name, budget = {"name": "random_search"}, {"seconds": 0.4}
    for number in range(3):  # whether it shows depends on where in a round the time is over
        config = toy_config(founders, algorithm=name, budget=budget, seed=number)
        run_dir = tmp_path / f"{number}"
        inner = pool_for(config, run_dir, 0).inner
        with Evolution(config, run_dir, pool=ReorderedPool(inner, last_after_a_while)) as evolution:
            counted = [g.evaluations for g in evolution][-1]
        assert resume(run_dir).evaluations == counted


# Who may go on, and when


def test_a_finished_run_is_not_run_again(whole, founders, tmp_path):
    _, _, run_dir = whole("recipe_search")
    before = {p: p.read_bytes() for p in run_dir.rglob("*.parquet")}
    with pytest.raises(EvoError, match="has finished"):
        Evolution.resume(run_dir)
    assert {p: p.read_bytes() for p in run_dir.rglob("*.parquet")} == before


def test_a_folder_without_a_run_cannot_go_on(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(EvoError, match="no run here"):
            Evolution.resume(folder)
    assert not (tmp_path / "nowhere").exists()
    assert not list(tmp_path.iterdir())


def test_a_second_process_on_a_run_is_refused_and_changes_nothing(founders, tmp_path):
    config = config_for(founders)
    with Evolution(config, tmp_path / "run") as evolution:
        next(iter(evolution))
        before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
        for again in (
            lambda: Evolution(config, tmp_path / "run"),
            lambda: Evolution.resume(tmp_path / "run"),
        ):
            with pytest.raises(EvoError, match=rf"process {os.getpid()} .* is working"):
                again()
        assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
        assert read_status(tmp_path / "run").state == "running"
    assert read_status(tmp_path / "run").state == "stopped"


def test_a_run_that_could_not_begin_leaves_nothing(founders, tmp_path):
    config = toy_config(founders, tasks=[task(metric="nowhere")])
    with pytest.raises(Exception, match="nowhere"):
        Evolution(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Drift


def drift(run_dir, match):
    before = {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file() and p.name != "lock"}
    with pytest.raises(Exception, match=match):
        Evolution.resume(run_dir)
    after = {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file() and p.name != "lock"}
    assert after == before


def test_a_changed_founder_is_named(tmp_path):
    import torch

    config = config_for(tmp_path / "f")
    stopped_run(config, tmp_path / "run", 8)
    save_file({"x": torch.tensor([0.5, 0.5, 0.5, 0.5])}, config.founders["b"])
    drift(tmp_path / "run", "founder b: its tensors have changed since the run started")
    config.founders["b"].unlink()
    drift(tmp_path / "run", r"b\.safetensors: no such checkpoint; it is founders\.b")


def test_founders_may_move(whole, tmp_path):
    expected, _, _ = whole("recipe_search")
    config = config_for(tmp_path / "f")
    stopped_run(config, tmp_path / "run", 8)
    (tmp_path / "f").rename(tmp_path / "g")
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text().replace(f"{tmp_path}/f/", f"{tmp_path}/g/"))
    assert results(resume(tmp_path / "run")) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", 6), ("finalists", 3), ("algorithm.sigma", 0.9), ("tasks.toy.data.dev", "other")],
)
def test_a_changed_key_of_the_config_is_named(key, value, founders, tmp_path):
    stopped_run(config_for(founders, "genome"), tmp_path / "run", 8)
    path = tmp_path / "run" / "config.json"
    data = json.loads(path.read_text())
    *way, last = key.replace("tasks.toy", "tasks.0").split(".")
    at = data
    for part in way:
        at = at[int(part)] if isinstance(at, list) else at[part]
    at[last] = value
    path.write_text(json.dumps(data))
    drift(tmp_path / "run", f"key {key}: has changed since the run started")


def test_where_it_runs_may_change(whole, founders, tmp_path):
    expected, _, _ = whole("recipe_search")
    stopped_run(config_for(founders), tmp_path / "run", 8)
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text().replace('"start_timeout_s": 300.0', '"start_timeout_s": 10.0'))
    assert results(resume(tmp_path / "run")) == expected


def test_changed_examples_are_named():
    then = made_manifest({"t.dev": "1", "t.test": "2"})
    found = changes(then, made_manifest({"t.dev": "1", "t.test": "3"}))
    assert found.fatal == ("task t.test: its examples have changed since the run started",)
    assert not found.code


def test_changed_code_is_named_and_may_be_accepted(whole, founders, tmp_path):
    expected, _, _ = whole("recipe_search")
    stopped_run(config_for(founders), tmp_path / "run", 8)
    change_manifest(tmp_path / "run", "search", versions={"cmaes": "0.0.1"})
    other = {"operators/merge": "other"}
    change_manifest(tmp_path / "run", "scores", code=other, user_code={"toys": "other"})
    for text in ("cmaes was 0.0.1 and is", "operators/merge", "module toys", "--accept-drift"):
        drift(tmp_path / "run", text)
    assert results(resume(tmp_path / "run", accept_drift=True)) == expected
    events = [r["detail"] for r in rows(tmp_path / "run", "events") if r["kind"] == "drift"]
    assert any("cmaes" in e for e in events)


def test_the_command_line_does_not_go_on_with_an_algorithm_of_ones_own(founders, tmp_path):
    """The founders are asked by every algorithm: nothing else would tell."""
    config, run_dir = config_for(founders), tmp_path / "run"

    class Mine(RandomSearch):
        pass

    def mine(start):
        return Mine(RandomSearchSettings(), start)

    with pytest.raises(Stop):
        run(config, run_dir, pool=pool_for(config, run_dir, 2), algorithm=mine)
    drift(run_dir, r"the run's algorithm is .*Mine.*Evolution\.resume\(run_dir, algorithm=")
    assert resume(run_dir, algorithm=mine).evaluations == 30


@pytest.mark.parametrize("after", [8, 20])
def test_an_algorithm_that_asks_otherwise_is_found_out(after, founders, tmp_path):
    config = config_for(founders)
    stopped_run(config, tmp_path / "run", after)
    with (
        pytest.raises(EvoError, match="are not requested by the replayed search"),
        Evolution.resume(
            tmp_path / "run", algorithm=lambda s: make(config.algorithm, replace(s, seed=6))
        ) as evolution,
    ):
        for _ in evolution:
            pass


# Damage


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, founders):
    run_dir = tmp_path_factory.mktemp("stopped") / "run"
    stopped_run(config_for(founders), run_dir, 21)
    return run_dir


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone"])
@pytest.mark.parametrize(
    "name", ["individuals", "evaluations", "items", "population", "commits", "journal"]
)
def test_damage_is_named_overwrites_nothing_and_can_be_repaired(
    name, damage, stopped, whole, tmp_path
):
    if (name, damage) == ("journal", "truncated"):
        pytest.skip("that is what a kill leaves: nothing is damaged, something is evaluated again")
    expected, lineage, _ = whole("recipe_search")
    run_dir = tmp_path / "run"
    shutil.copytree(stopped, run_dir)
    folder = run_dir / "lineage"
    path = folder / "journal.arrows"
    if name != "journal":
        path = next((folder / name).glob("000001.*"))
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        at = len(data) // 2
        if name == "journal":  # not into the space between its records
            at = data.index(read_journal(path).records[1].individual.encode())
        data[at] ^= 0x10
        path.write_bytes(data)
    elif damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.unlink()
    drift(run_dir, f"{path.name}: damaged")
    if name not in ("journal", "commits"):
        others = {t: evo.lineage.open(run_dir).table(t) for t in evo.lineage.SCHEMAS if t != name}
        assert all(t.num_rows for t in others.values())
    assert results(resume(run_dir, repair=True)) == expected
    assert recorded_in(run_dir) == lineage
    if damage != "gone":
        kept = (run_dir / "damaged" / path.relative_to(folder)).read_bytes()
        assert kept == bytes(data[: len(kept)])
        assert len(kept) in (len(data), len(data) // 2)


@pytest.mark.parametrize(
    "after", [21, 31]
)  # with evaluations of later ones in the journal, and without
def test_a_last_commit_that_is_gone_is_named_and_is_no_shorter_lineage(
    after, founders, whole, tmp_path
):
    expected, lineage, _ = whole("recipe_search")
    stopped_run(config_for(founders), tmp_path / "run", after)
    last = sorted((tmp_path / "run" / "lineage" / "commits").iterdir())[-1]
    last.unlink()
    drift(tmp_path / "run", f"{last.name}: damaged .the file is gone")
    assert results(resume(tmp_path / "run", repair=True)) == expected
    assert recorded_in(tmp_path / "run") == lineage


def test_a_repair_that_is_stopped_in_the_middle_can_be_done_again(
    stopped, whole, tmp_path, monkeypatch
):
    expected, lineage, _ = whole("recipe_search")
    run_dir = tmp_path / "run"
    shutil.copytree(stopped, run_dir)
    (run_dir / "lineage" / "commits" / "000001.json").write_text("{}")
    moved = shutil.move
    for allowed in (1, 3, 6):
        left = [None] * allowed

        def move(source, target, left=left):
            if not left:
                raise Stop
            left.pop()
            return moved(source, target)

        monkeypatch.setattr(shutil, "move", move)
        with pytest.raises(Stop):
            Evolution.resume(run_dir, repair=True)
    monkeypatch.undo()
    assert results(resume(run_dir, repair=True)) == expected
    assert recorded_in(run_dir) == lineage


@pytest.mark.parametrize("change", [{"layers": 3}, {"search": {}}, {"scores": []}])
def test_a_changed_manifest_is_named(change, stopped, tmp_path):
    """Nothing else holds what it says of how the run goes."""
    shutil.copytree(stopped, tmp_path / "run")
    path = tmp_path / "run" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    drift(tmp_path / "run", r"manifest\.json: damaged")


def test_a_config_that_is_gone_is_named(stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    drift(tmp_path / "run", r"config\.json: missing")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_journal_of_any_bytes_gives_a_prefix_or_a_clear_error(data, stopped, tmp_path_factory):
    journal = stopped / "lineage" / "journal.arrows"
    good = journal.read_bytes()
    records = read_journal(journal).records
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    bad = bad[: data.draw(st.integers(0, len(bad)))] if data.draw(st.booleans()) else bad
    path = tmp_path_factory.mktemp("j") / "journal.arrows"
    path.write_bytes(bytes(bad))
    try:
        found = read_journal(path)
    except EvoError as error:
        assert "journal.arrows: damaged at byte" in str(error)  # noqa: PT017
        return
    assert found.records == records[: len(found.records)]
    assert found.size + found.torn == len(bad)


@settings(max_examples=50, deadline=None)
@given(junk=st.binary(max_size=3000))
def test_a_journal_of_junk_is_refused(junk, tmp_path_factory):
    path = tmp_path_factory.mktemp("j") / "journal.arrows"
    path.write_bytes(junk)
    try:
        assert read_journal(path).records == ()
    except EvoError as error:
        assert "damaged" in str(error)  # noqa: PT017


def test_a_journal_that_is_being_written_can_be_read(tmp_path, founders):
    config = config_for(founders)
    counts = []

    def look(progress):
        counts.append(read_status(tmp_path / "run").evaluations - progress.evaluations)

    with Evolution(config, tmp_path / "run", observe=look) as evolution:
        for _ in evolution:
            pass
    assert set(counts) == {0}  # the moment that it is known, it is written


# Disks


def child(code: str, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "PYTHONPATH": f"{SUPPORT}:{os.environ.get('PYTHONPATH', '')}",
    }
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=env, timeout=PATIENCE_S, **options
    )


RESUME = """
import sys
sys.path.insert(0, sys.argv[2])
sys.argv = ["evo", "resume", sys.argv[1]]
from evo.cli import main
main()
"""


@pytest.mark.parametrize("room", [2000, 12000])
def test_a_full_disk_is_a_clear_error_and_loses_nothing(room, stopped, whole, tmp_path):
    expected, lineage, _ = whole("recipe_search")
    run_dir = tmp_path / "run"
    shutil.copytree(stopped, run_dir)
    before = read_journal(run_dir / "lineage" / "journal.arrows").records

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))  # as if no block were left

    done = child(RESUME, str(run_dir), str(SUPPORT), preexec_fn=limit)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr
    assert "lineage" in done.stderr
    assert read_journal(run_dir / "lineage" / "journal.arrows").records[: len(before)] == before
    assert not list(run_dir.rglob("*.tmp"))
    assert results(resume(run_dir)) == expected
    assert recorded_in(run_dir) == lineage


def test_a_read_only_folder_is_a_clear_error(stopped, tmp_path):
    """Root writes everywhere but on a read-only mount."""
    run_dir = tmp_path / "run"
    shutil.copytree(stopped, run_dir)
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && echo mounted && exec "$@"'
    resume = [sys.executable, "-c", RESUME, str(run_dir), str(SUPPORT)]
    command = ["unshare", "-rm", "sh", "-c", mount, str(run_dir), *resume]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=PATIENCE_S
    )
    if "mounted" not in done.stdout:
        pytest.skip(f"no mounts here: {done.stderr}")
    assert done.returncode == 2, done.stderr
    assert "Read-only file system" in done.stderr
    assert str(run_dir) in done.stderr
    assert "Traceback" not in done.stderr


# The command line, killed for good


def write_config(folder: Path, founders: Path) -> Path:
    config = toy_config(founders, tasks=[task("slow_for_a")], pool={"kind": "local"}, seed=3)
    path = folder / "toy.yaml"
    path.write_text(config.model_dump_json())  # JSON is YAML
    return path


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_command_goes_on(way, founders, tmp_path):
    path, run_dir = write_config(tmp_path, founders), tmp_path / "run"
    command = [*CLI, "run", str(path), "--run-dir", str(run_dir)]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
    while not (run_dir / "lineage" / "commits" / "000002.json").exists():
        assert process.poll() is None
    process.send_signal(way)
    _, errors = process.communicate(timeout=PATIENCE_S)
    expected = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[way]
    if process.returncode != 0:  # it may have ended before the signal came
        assert process.returncode == expected, errors
        if way != signal.SIGKILL:
            assert f"evo resume {run_dir}" in errors
            assert "Traceback" not in errors
        assert read_status(run_dir).state == "stopped"
    done = evo_command("run", path, "--run-dir", run_dir, "--resume")
    assert done.returncode == 0, done.stderr
    assert read_status(run_dir).state == "finished"
    run(toy_config(founders, tasks=[task("slow_for_a")], seed=3), tmp_path / "whole")
    assert recorded_in(run_dir) == recorded_in(tmp_path / "whole")


def test_going_on_with_another_config_is_refused_by_key(founders, tmp_path):
    path, run_dir = write_config(tmp_path, founders), tmp_path / "run"
    stopped_run(toy_config(founders, tasks=[task("slow_for_a")], seed=4), run_dir, 8)
    done = evo_command("run", path, "--run-dir", run_dir, "--resume")
    assert done.returncode == 2
    assert "seed differ" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"c":', '"d":', "founders"),
        ("f/c.safetensors", "f/base.safetensors", "founders.c"),
        ("dev.jsonl", "other.jsonl", "toy.dev"),
    ],
)
def test_going_on_with_other_founders_or_examples_is_refused(old, new, named, tmp_path):
    """As from a config that was edited since: the run would go on without the edit."""
    for name in ("dev", "other"):
        rows = [{"prompt": f"{name} {i}", "answer": "1"} for i in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows))
    tasks = [task("nearness"), {"name": "toy", "files": {"dev": str(tmp_path / "dev.jsonl")}}]
    config = toy_config(tmp_path / "f", tasks=tasks[named == "toy.dev" :][:1])
    run_dir = tmp_path / "run"
    models = load_founders(config.base, config.founders)
    RunDir(run_dir).write_manifest(fingerprint(config, models, load_tasks(config.tasks)))
    RunDir(run_dir).write_config(config)
    text = config.model_dump_json()
    assert old in text
    (tmp_path / "toy.yaml").write_text(text.replace(old, new))
    with pytest.raises(EvoError, match=rf"another config than .*: {re.escape(named)}[, ]"):
        run_config(tmp_path / "toy.yaml", run_dir, (), resumes=True)


def test_only_the_pool_and_the_budget_may_be_set_when_a_run_goes_on(stopped, tmp_path):
    done = evo_command("resume", stopped, "--set", "seed=4")
    assert done.returncode == 2
    assert "only budget.evaluations and keys of pool and trackers may change" in done.stderr


def test_status_tells_where_a_run_stands(stopped, whole, tmp_path):
    done = evo_command("status", stopped)
    assert done.returncode == 0
    assert ": stopped" in done.stdout
    assert "21 of 30 evaluations" in done.stdout
    assert f"evo resume {stopped}" in done.stdout
    done = evo_command("status", stopped, "--json")
    found = json.loads(done.stdout)
    assert (found["state"], found["evaluations"], found["failed"]) == ("stopped", 21, 0)
    assert found["best"] == evo.lineage.open(stopped).best()
    assert read_status(whole("recipe_search")[2]).state == "finished"


def test_an_open_journal_takes_a_result_at_a_time(tmp_path, stopped):
    """What one process wrote, another reads at once, record by record."""
    from operators.recipe import Founder

    path = tmp_path / "journal.arrows"
    journal = Journal(path)
    records = read_journal(stopped / "lineage" / "journal.arrows").records
    assert records
    for count, record in enumerate(records, start=1):
        journal.append(record.result(Founder(record.individual, "0")))
        assert len(read_journal(path).records) == count
    journal.close()
    journal.close()  # harmless
