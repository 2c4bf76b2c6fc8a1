"""Trackers get each generation once, through kills and resumes; the real packages read it back."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from patience import PATIENCE_S
from toy_runs import task
from toys import toy_config

from evo.cli import cli
from evo.config.loader import load_config
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.report.write import write_report
from evo.trackers import TRACKERS, make_trackers
from evo.trackers.protocol import final_scores

CLI = (sys.executable, "-c", "from evo.cli import main; main()")
NAMES = ("best", "mean", "spread", "generation", "evaluations", "failed", "evaluations_per_second")
ALL = {"tensorboard": {}, "mlflow": {}, "wandb": {"mode": "offline"}}


@pytest.fixture(autouse=True)
def _local_stores(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "mlruns"))


@pytest.fixture(scope="module")
def founders(tmp_path_factory):
    return tmp_path_factory.mktemp("founders")


class Listener:
    """A callback that remembers; ``fails_at`` is a generation that it can't take."""

    def __init__(self, fails_at=None):
        self.fails_at = fails_at
        self.heard, self.summary, self.closed = [], None, 0

    def start(self, run):
        self.told = run
        return "mine"

    def generation(self, generation):
        if generation.number == self.fails_at:
            raise OSError(28, "No space left on device")
        self.heard.append(generation)

    def finish(self, summary):
        self.summary = summary

    def close(self):
        self.closed += 1


def tensorboard_scalars(run_dir):
    """{tag: [(step, value)]} as TensorBoard itself reads the folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0})
    read.Reload()
    found = {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    texts = {
        tag: [e.tensor_proto.string_val[0].decode() for e in read.Tensors(tag)]
        for tag in read.Tags()["tensors"]
    }
    return found, texts


def mlflow_run(run_dir):
    """The run, and {metric: [(step, value)]}, as MLflow's client reads the store."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("evo")
    (found,) = client.search_runs([experiment.experiment_id])
    return found, {
        name: [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, name)]
        for name in found.data.metrics
    }


def wandb_records(run_dir):
    """Every record of every session's file, by the layout of LevelDB's log that W&B writes."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted((run_dir / "wandb").glob("offline-run-*/*.wandb")):
        data, at, whole = path.read_bytes(), 7, b""
        while at < len(data):
            if 2**15 - at % 2**15 < 7:  # what is left of a block holds no header
                at += 2**15 - at % 2**15
                continue
            length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
            whole += data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):  # all of a record, or its end
                yield Record.FromString(whole)
                whole = b""


def wandb_history(run_dir):
    """{metric: [(step, value)]}, and the summary."""
    found, summary = {}, {}
    for record in wandb_records(run_dir):
        if record.HasField("history"):
            step = record.history.step.num
            for item in record.history.item:
                name = item.key or item.nested_key[0]
                found.setdefault(name, []).append((step, json.loads(item.value_json)))
        for item in record.summary.update:
            summary[item.key or item.nested_key[0]] = json.loads(item.value_json)
    return found, summary


def expected(generations, name):
    values = {
        "best": lambda g: g.best.fitness,
        "mean": lambda g: g.mean,
        "spread": lambda g: g.spread,
        "generation": lambda g: g.number,
        "evaluations": lambda g: g.evaluations,
        "failed": lambda g: g.failed,
        "evaluations_per_second": lambda g: g.evaluations / g.seconds,
    }
    return [(g.evaluations, pytest.approx(values[name](g), rel=1e-5)) for g in generations]


@pytest.fixture
def tracked(founders, tmp_path):
    """A whole run with every tracker that needs no Ray: its folder, what a callback heard, its summary."""
    listener, run_dir = Listener(), tmp_path / "run"
    config = toy_config(founders, trackers=ALL)
    with Evolution(config, run_dir, callbacks=[listener]) as evolution:
        for _ in evolution:
            pass
        write_report(run_dir, None)
        return run_dir, listener, evolution.finish()


def test_trackers_hold_every_generation_and_the_final_scores(tracked):
    run_dir, listener, summary = tracked
    finals = final_scores(summary)
    assert finals["test/winner"] == summary.winner.test
    assert set(finals) >= {"test/founder/a", "test_se/founder/a", "test/average/uniform_average"}
    board, texts = tensorboard_scalars(run_dir)
    flow, history = mlflow_run(run_dir)
    weights, at_the_end = wandb_history(run_dir)
    last = listener.heard[-1].evaluations
    for name in NAMES:
        for found in (board, history, weights):
            assert found[name] == expected(listener.heard, name)
    for name, value in finals.items():
        assert board[name] == [(last, pytest.approx(value))]
        assert history[name] == [(last, value)]
        assert at_the_end[name] == value
    assert "| budget.evaluations | 60 |" in texts["config"][0]
    assert summary.winner.id in texts["outcome"][0]
    report = str(run_dir / "report.html")
    assert report in texts["outcome"][0]
    assert flow.data.tags["evo.report"] == at_the_end["report"] == report
    assert flow.data.params["budget.evaluations"] == "60"
    assert flow.data.tags["evo.winner"] == at_the_end["winner"] == summary.winner.id
    assert flow.info.status == "FINISHED"


def test_a_spread_is_that_of_the_population(tracked):
    lineage = json.loads((tracked[0] / "summary.json").read_text())
    first = tracked[1].heard[0]  # the founders
    founders = [b["dev"] for b in lineage["baselines"] if b["kind"] == "founder"]
    mean = sum(founders) / 3
    assert first.mean == pytest.approx(mean)
    assert first.spread == pytest.approx((sum((f - mean) ** 2 for f in founders) / 3) ** 0.5)


def begin(config, path, run_dir):
    path.write_text(config.model_dump_json())
    return subprocess.Popen(
        [*CLI, "run", str(path), "--run-dir", str(run_dir)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def logged(run_dir, name):
    try:
        return json.loads((run_dir / "trackers.json").read_text())[name]["generation"]
    except (FileNotFoundError, KeyError):  # it is not there until the tracker has started
        return -1


@pytest.mark.slow
def test_a_killed_and_resumed_run_logs_each_generation_once(founders, tmp_path):
    tasks = [task("naps") | {"data": {"dev": "0.03"}}]
    trackers = {"tensorboard": {}, "mlflow": {}}
    config = toy_config(founders, tasks=tasks, trackers=trackers, budget={"evaluations": 50})
    run_dir, stores = tmp_path / "run", (tmp_path / "run", tmp_path / "mlruns")
    process = begin(config, tmp_path / "toy.json", run_dir)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while logged(run_dir, "mlflow") < 3:
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    for store in stores:
        shutil.copytree(store, tmp_path / "killed" / store.name)
    each_generation_is_logged_once(run_dir)
    for store in stores:
        shutil.rmtree(store)
        shutil.copytree(tmp_path / "killed" / store.name, store)
    # As if it had been killed between logging a generation and putting that on record.
    path = run_dir / "trackers.json"
    record = json.loads(path.read_text())
    steps = sorted({step for step, _ in tensorboard_scalars(run_dir)[0]["best"]})
    for entry in record.values():
        entry |= {"generation": entry["generation"] - 1, "evaluations": steps[-2]}
    path.write_text(json.dumps(record))
    each_generation_is_logged_once(run_dir)


def each_generation_is_logged_once(run_dir):
    listener = Listener()
    with Evolution.resume(run_dir, callbacks=[listener]) as evolution:
        generations = list(evolution)
        evolution.finish()
    assert listener.heard == generations  # new to the run, so all are new to it
    board, history = tensorboard_scalars(run_dir)[0], mlflow_run(run_dir)[1]
    for name in NAMES:
        assert board[name] == expected(generations, name)
        assert history[name] == expected(generations, name)


def test_what_was_committed_but_not_logged_is_logged_when_the_run_goes_on(founders, tmp_path):
    """A tracker that comes later, by --set, hears of everything."""
    run_dir = tmp_path / "run"
    with Evolution(toy_config(founders), run_dir) as evolution:
        for generation in evolution:
            if generation.number == 4:
                break
    done = CliRunner().invoke(cli, ["resume", str(run_dir), "--set", "trackers.tensorboard={}"])
    assert done.exit_code == 0, done.output
    assert [step for step, _ in tensorboard_scalars(run_dir)[0]["best"]][:3] == [3, 10, 17]


def test_the_sittings_of_a_run_are_one_run_of_weights_and_biases(founders, tmp_path):
    run_dir = tmp_path / "run"
    config = toy_config(founders, trackers={"wandb": {"mode": "offline"}})
    with Evolution(config, run_dir) as evolution:
        for generation in evolution:
            if generation.number == 4:
                break
    with Evolution.resume(run_dir) as evolution:
        generations = list(evolution)
        evolution.finish()
    history, _ = wandb_history(run_dir)
    for name in NAMES:
        assert history[name] == expected(generations, name)
    ids = {r.run.run_id for r in wandb_records(run_dir) if r.HasField("run")}
    assert len(ids) == 1


def test_callbacks_of_ones_own_hear_of_each_generation_once_over_all_sittings(founders, tmp_path):
    run_dir, first, second = tmp_path / "run", Listener(), Listener()
    with Evolution(toy_config(founders), run_dir, callbacks=[first]) as evolution:
        for generation in evolution:
            if generation.number == 4:
                break
    with Evolution.resume(run_dir, callbacks=[second]) as evolution:
        numbers = [generation.number for generation in evolution]
        summary = evolution.finish()
    heard = [g.number for listener in (first, second) for g in listener.heard]
    assert heard == numbers
    assert (first.told.tracker_id, second.told.tracker_id) == ("", "mine")
    assert (first.summary, second.summary) == (None, summary)
    assert first.closed == second.closed == 1


def test_a_callback_that_fails_is_removed_and_the_run_goes_on(founders, tmp_path, caplog):
    bad, good, run_dir = Listener(fails_at=2), Listener(), tmp_path / "run"
    with Evolution(toy_config(founders), run_dir, callbacks=[bad, good]) as evolution:
        generations = list(evolution)
        evolution.finish()
    assert [g.number for g in bad.heard] == [0, 1]
    assert bad.closed == 1
    assert bad.summary is None
    assert good.heard == generations
    (event,) = [e for e in evolution.lineage.events.to_pylist() if e["kind"] == "tracker"]
    assert event["detail"].startswith("Listener: removed after an error: ")
    assert "No space left on device" in event["detail"]
    assert event["generation"] == 2
    assert "No space left on device" in caplog.text


def test_a_store_that_goes_away_does_not_end_the_run(founders, tmp_path):
    run_dir = tmp_path / "run"
    config = toy_config(founders, trackers={"mlflow": {}, "tensorboard": {}})
    with Evolution(config, run_dir) as evolution:
        for generation in evolution:
            if generation.number == 2:
                shutil.rmtree(tmp_path / "mlruns")
        evolution.finish()
    (event,) = [e for e in evolution.lineage.events.to_pylist() if e["kind"] == "tracker"]
    assert event["detail"].startswith("mlflow: removed after an error")
    assert len(tensorboard_scalars(run_dir)[0]["best"]) == generation.number + 1


def test_a_server_that_is_not_there_refuses_the_run_and_leaves_nothing(founders, tmp_path):
    config = toy_config(founders, trackers={"mlflow": {"uri": "http://127.0.0.1:9"}})
    with pytest.raises(EvoError, match=r"trackers.mlflow: could not start.*127.0.0.1"):
        Evolution(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    name, founders, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, TRACKERS[name].package, None)
    with pytest.raises(EvoError, match=rf"trackers.{name}: .*pip install 'evo-models\[\w+\]'"):
        Evolution(toy_config(founders, trackers={name: {}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_called_like_a_package_is_not_the_package(founders, tmp_path, monkeypatch):
    """As the one that W&B leaves in the current folder."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    (tmp_path / "wandb").mkdir()
    with pytest.raises(EvoError, match=r"wandb is not installed: pip install"):
        make_trackers(toy_config(founders, trackers={"wandb": {}}).trackers, on_ray=False)


def test_prometheus_without_ray_is_refused(founders, tmp_path):
    with pytest.raises(EvoError, match=r"trackers.prometheus: .*pool.kind: ray"):
        Evolution(toy_config(founders, trackers={"prometheus": {}}), tmp_path / "run")


def test_a_name_alone_switches_a_tracker_on(founders, tmp_path):
    text = toy_config(founders).model_dump_json(exclude={"trackers"})
    path = tmp_path / "toy.yaml"
    path.write_text(f'{text[:-1]}, "trackers": {{tensorboard: , mlflow: {{experiment: x}}}}}}')
    config = load_config(path)
    assert config.model_dump(mode="json")["trackers"] == {
        "tensorboard": {},
        "mlflow": {"uri": None, "experiment": "x"},
    }
    path.write_text(f'{text[:-1]}, "trackers": {{tensorbord: {{}}}}}}')
    with pytest.raises(EvoError, match=r"trackers.tensorbord: unknown key. Did you mean"):
        load_config(path)


def test_a_damaged_record_of_trackers_is_named(founders, tmp_path):
    run_dir = tmp_path / "run"
    with Evolution(toy_config(founders, trackers={"tensorboard": {}}), run_dir) as evolution:
        next(iter(evolution))
    Path(run_dir / "trackers.json").write_text("[]")
    with pytest.raises(EvoError, match=r"trackers.json: damaged"):
        Evolution.resume(run_dir)
