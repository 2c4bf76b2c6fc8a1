"""Ray's own metrics: what a Prometheus that scrapes a node finds of a run."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request

import pytest
from patience import PATIENCE_S
from toy_runs import task
from toys import toy_config

CLI = (sys.executable, "-c", "from evo.cli import main; main()")


def scrape(address):
    """{(name, stage): value} of the run called ``metered``."""
    with urllib.request.urlopen(address, timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for name, labels, value in re.findall(r"^ray_(evo_\w+)\{(.*)\} (\S+)$", text, re.M):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if tags["run"] == "metered":
            found[name, tags.get("stage")] = float(value)
    return found


@pytest.mark.slow
def test_a_node_serves_the_numbers_of_a_run(tmp_path):
    """A run on a Ray of its own, as people start one, whose one host dies once and is replaced."""
    run_dir, log = tmp_path / "metered", tmp_path / "log"
    tasks = [
        task("once_deadly") | {"data": {"dev": str(tmp_path / "marker")}},
        task("naps", name="slow") | {"data": {"dev": "0.02"}},
    ]
    config = toy_config(
        tmp_path / "f",
        tasks=tasks,
        budget={"seconds": 300},
        pool={"kind": "ray", "hosts": 1},
        trackers={"prometheus": {}},
    )
    (tmp_path / "toy.json").write_text(config.model_dump_json())
    environment = os.environ | {
        "RAY_metrics_report_interval_ms": "500"
    }  # Ray's default is ten seconds
    command = [*CLI, "run", str(tmp_path / "toy.json"), "--run-dir", str(run_dir)]
    found = {}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + PATIENCE_S
            while found.get(("evo_evaluations_total", None), 0) < 20 or len(found) < 8:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, (found, log.read_text())
                time.sleep(0.1)
                if (run_dir / "trackers.json").exists():
                    record = json.loads((run_dir / "trackers.json").read_text())
                    found = scrape(record["prometheus"]["tracker_id"])
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=PATIENCE_S)
    assert 0.0 < found["evo_best_fitness", None] <= 1.0
    assert found["evo_retries_total", None] == 1.0
    assert found["evo_hosts", None] in (0.0, 1.0)  # none while it was replaced
    assert (
        0.0 <= found["evo_in_flight", None] <= 7.0
    )  # a round of recipe_search over three founders
    for stage in ("build", "model", "score"):
        assert found["evo_busy_seconds_total", stage] > 0.0
    model = found["evo_busy_seconds_total", "model"]
    assert model >= 0.02 * (found["evo_evaluations_total", None] - 1)
    assert "evo_evaluations_failed_total" not in {name for name, _ in found}


@pytest.mark.slow
def test_the_best_is_served_through_generations_that_take_long(tmp_path):
    """Ray forgets a gauge that was not set for two of its reports."""
    run_dir, log = tmp_path / "metered", tmp_path / "log"
    config = toy_config(
        tmp_path / "f",
        tasks=[task("naps") | {"data": {"dev": "1.5"}}],
        pool={"kind": "ray", "hosts": 1},
        trackers={"prometheus": {}},
    )
    (tmp_path / "toy.json").write_text(config.model_dump_json())
    environment = os.environ | {"RAY_metrics_report_interval_ms": "500"}
    command = [*CLI, "run", str(tmp_path / "toy.json"), "--run-dir", str(run_dir)]
    best = ("evo_best_fitness", None)
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            deadline, found = time.monotonic() + PATIENCE_S, {}
            while best not in found:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, (found, log.read_text())
                time.sleep(0.1)
                if (run_dir / "trackers.json").exists():
                    record = json.loads((run_dir / "trackers.json").read_text())
                    found = scrape(record["prometheus"]["tracker_id"])
            end = time.monotonic() + 6
            while time.monotonic() < end:
                assert best in scrape(record["prometheus"]["tracker_id"])
                time.sleep(0.2)
            told = json.loads((run_dir / "trackers.json").read_text())
            assert told["prometheus"]["generation"] == 0  # it was set once
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=PATIENCE_S)
