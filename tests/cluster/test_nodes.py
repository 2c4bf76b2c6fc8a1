"""Nodes that join, go, are drained and differ, under a pool that follows them. Real Ray nodes."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from patience import PATIENCE_S
from places import SUPPORT

pytestmark = pytest.mark.slow
RunScenario = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def run_scenario(tmp_path_factory) -> Iterator[RunScenario]:
    """Runs a scenario of `node_driver.Driver`. Scenarios share a cluster, in any order."""
    folder = tmp_path_factory.mktemp("nodes")
    here = SUPPORT
    with open(folder / "log", "w") as log:
        driver = subprocess.Popen(
            [sys.executable, here / "node_driver.py", folder],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(here)])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            bufsize=1,
        )
    assert driver.stdin is not None
    assert driver.stdout is not None

    def run(scenario: str) -> dict[str, Any]:
        driver.stdin.write(scenario + "\n")
        ready, _, _ = select.select([driver.stdout], [], [], PATIENCE_S)
        line = driver.stdout.readline() if ready else ""
        assert line, (folder / "log").read_text()[-3000:]
        found: dict[str, Any] = json.loads(line)
        assert "failed" not in found, found["failed"]
        print(found)
        return found

    yield run
    driver.stdin.close()
    try:
        driver.wait(20)
    except subprocess.TimeoutExpired:
        driver.kill()
        driver.wait()


def kinds(found: dict[str, Any]) -> list[str]:
    return [kind for kind, _ in found["events"]]


def assert_done(found: dict[str, Any]) -> None:
    """Every job has one result, no error and one attempt."""
    assert found["errors"] == []
    assert found["twice"] == 0
    assert found["attempts"] == [1]


def test_a_node_that_joins_gets_work_and_its_loss_costs_no_attempt(run_scenario):
    found = run_scenario("node_joins_and_is_lost")
    joined, lost = found["joined"], found["lost"]
    assert_done(joined)
    assert kinds(joined) == ["node joined", "host ready"]
    assert len(joined["hosts"]) == 2
    assert_done(lost)
    assert set(lost["by"]) <= set(joined["hosts"])
    assert len(lost["hosts"]) == 1
    assert {"host lost", "node lost"} <= set(kinds(lost))


def test_a_draining_node_finishes_its_jobs_and_its_host_is_removed(run_scenario):
    found = run_scenario("node_is_drained")
    assert_done(found)
    assert len(found["by"]) == 2
    assert [k for k in kinds(found) if k != "node lost"] == ["node draining", "host removed"]


def test_answers_lost_with_their_node_are_computed_again(run_scenario):
    found = run_scenario("answers_are_lost")
    assert_done(found)
    assert "answer lost" in kinds(found)


def test_a_fixed_number_of_hosts_is_filled_up_by_a_node_that_joins(run_scenario):
    found = run_scenario("fixed_number_is_refilled")
    assert_done(found)
    assert len(found["hosts"]) == 2
    assert "scorer lost" not in kinds(found)  # it lives where the coordinator does


def test_hosts_take_fractions_of_gpus_and_live_where_labels_say(run_scenario):
    found = run_scenario("fractions_and_labels")
    assert found["auto"] == [True, True]  # each on the right node
    assert found["one"] == [True]
    assert "no node of the cluster has room" in found["nowhere"]
    assert "zone=nowhere" in found["nowhere"]


def test_a_pool_on_a_cluster_in_use_begins_with_what_is_free(run_scenario):
    found = run_scenario("cluster_in_use")
    assert found["first"] == 1
    assert_done(found)
    assert len(found["hosts"]) == 2


def test_a_run_that_lost_all_nodes_ends_and_says_that_it_can_be_resumed(run_scenario):
    found = run_scenario("all_nodes_are_lost")
    assert "all hosts are lost" in found["error"]
    assert "resume the run" in found["error"]
    assert found["seconds"] > 3
