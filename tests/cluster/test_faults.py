"""Faults of hosts and scorers, in real processes: SIGKILL, hangs, too much memory, failed starts.

Nodes that come and go are in test_nodes.py.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from patience import PATIENCE_S
from safetensors.torch import save_file
from toy_pools import fault_spec, jobs_for

from cluster.jobs import Job, JobResult, PoolEvent, PoolSpec
from cluster.pool import Pool, PoolError, run_all
from operators.recipe import linear

DEADLINE_S = 1.5


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> PoolSpec:
    return fault_spec(tmp_path_factory.mktemp("faults"), memory_gib=0.5)


@pytest.fixture(scope="module")
def pool(ray_session, spec):
    from cluster.ray.pool import RayPool

    pool = RayPool(spec, hosts=2, deadline_s=DEADLINE_S)
    yield pool
    pool.close()


@pytest.fixture(autouse=True)
def _heal(request) -> None:
    """Every test begins with two hosts that are ready, and no events."""
    if "pool" in request.fixturenames:
        pool, spec = request.getfixturevalue("pool"), request.getfixturevalue("spec")
        work_until(pool, spec, lambda: pool.hosts == 2 and pool.scorer_pid)
        pool.events()


def work_until(
    pool: Pool, spec: PoolSpec, done: Callable[[], object], timeout_s=PATIENCE_S
) -> None:
    """Run small jobs, so that the pool checks its hosts, until ``done``."""
    until = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < until
        assert all(r.ok for r in run_all(pool, jobs_for(spec, "naps")))


def by_name(results: list[JobResult]) -> dict[str, JobResult]:
    return {r.job.recipe.name: r for r in results}


def kinds(events: tuple[PoolEvent, ...]) -> list[str]:
    return [e.kind for e in events]


def many(spec: PoolSpec, function: str, count: int = 8) -> list[Job]:
    a, b, _ = (f.founder for f in spec.host.founders)
    return jobs_for(spec, function, [linear({a: 1.0, b: k / 100}) for k in range(count)])


def test_a_host_killed_in_mid_evaluation_costs_one_job_an_attempt_and_is_replaced(pool, spec):
    for job in many(spec, "naps"):
        pool.submit(job)
    first = pool.wait()
    name, pid = next(iter(pool.host_pids.items()))
    os.kill(pid, signal.SIGKILL)
    assert len(pool.stats()) == 2  # though one of them has died just now
    results = [first, *(pool.wait() for _ in range(7))]
    assert all(r.ok for r in results)
    assert sorted(r.job.attempt for r in results) == [1] * 7 + [2]  # those behind it only waited
    work_until(pool, spec, lambda: pool.hosts == 2)
    events = pool.events()
    assert kinds(events) == ["host lost", "host ready"]
    assert name in events[0].detail
    assert "killed" in events[0].detail
    assert name not in pool.host_pids
    assert {s.host for s in pool.stats()} == set(pool.host_pids)


def test_a_scorer_killed_costs_rescoring_and_no_model_is_run_again(pool, spec):
    calls = Path(spec.tasks[-1].splits["dev"][0].row["data"])
    before = calls.stat().st_size if calls.exists() else 0
    for job in many(spec, "score_naps"):
        pool.submit(job)
    first = pool.wait()
    os.kill(pool.scorer_pid, signal.SIGKILL)
    results = [first, *(pool.wait() for _ in range(7))]
    assert all(r.ok for r in results)
    assert sorted(r.job.attempt for r in results) == [1] * 7 + [2]
    assert calls.stat().st_size - before == 8
    assert "scorer lost" in kinds(pool.events())


def test_an_individual_that_hangs_fails_after_three_hosts_and_no_other_does(pool, spec):
    results = by_name(list(run_all(pool, jobs_for(spec, "hangs_for_b"))))
    assert results["b"].error == "took longer than pool.deadline_s (1.5 s) on 3 hosts"
    assert results["a"].ok
    assert results["c"].ok
    assert {results[n].job.attempt for n in "ac"} == {1}
    assert kinds(pool.events()).count("deadline") == 3


def test_a_slow_host_costs_a_retry(pool, spec):
    results = list(run_all(pool, jobs_for(spec, "hangs_once")))
    assert all(r.ok for r in results)
    assert sorted(r.job.attempt for r in results) == [1, 1, 2]


def test_waiting_in_a_queue_is_not_held_against_a_job(pool, spec):
    results = list(run_all(pool, many(spec, "naps", 16)))  # of 0.3 s: the last waits 2.4 s
    assert {r.job.attempt for r in results} == {1}
    assert pool.events() == ()


@pytest.mark.slow
def test_scoring_that_hangs_fails_by_its_own_deadline_after_the_other_jobs(pool, spec):
    results = list(run_all(pool, jobs_for(spec, "score_hangs_for_b")))
    assert [r.job.recipe.name for r in results][-1] == "b"
    named = by_name(results)
    assert named["b"].error == "scoring took longer than pool.deadline_s (1.5 s) 3 times"
    assert {named[n].job.attempt for n in "ac" if named[n].ok} == {1}
    assert "host lost" not in kinds(pool.events())


def test_results_that_are_not_taken_for_a_while_miss_no_deadline(pool, spec):
    for job in [*jobs_for(spec, "nearness"), *jobs_for(spec, "score_plainly")]:
        pool.submit(job)
    pool.wait()  # and by then answers are on their way to the scorer
    time.sleep(2 * DEADLINE_S)  # a coordinator that is busy elsewhere; nothing to await
    assert all(pool.wait().job.attempt == 1 for _ in range(5))
    assert pool.events() == ()


@pytest.mark.slow
def test_scoring_that_kills_its_scorer_fails_alone(pool, spec):
    named = by_name(list(run_all(pool, jobs_for(spec, "score_kills_for_b"))))
    assert "lost with its scorer" in named["b"].error
    assert named["a"].ok
    assert named["c"].ok


def test_an_individual_that_needs_too_much_memory_fails_and_its_host_survives(pool, spec):
    pids = pool.host_pids
    named = by_name(list(run_all(pool, jobs_for(spec, "greedy_for_b"))))
    assert named["b"].error.startswith("out of memory on host-")
    assert "pool.memory_gib allows 0.5 GiB" in named["b"].error
    assert named["b"].job.attempt == 1
    assert named["a"].ok
    assert named["c"].ok
    assert pool.host_pids == pids
    assert pool.events() == ()


def test_out_of_memory_in_a_call_of_several_fails_one_individual(pool, spec):
    a, b, c = (f.founder for f in spec.host.founders)
    recipes = [linear({a: k / 40, c: 1 - k / 40}) for k in range(1, 40)]
    assert all(r.ok for r in run_all(pool, jobs_for(spec, "greedy_for_b", recipes)))  # and timed
    pids = pool.host_pids
    recipes[20:20] = [b]
    results = list(run_all(pool, jobs_for(spec, "greedy_for_b", recipes)))
    (failed,) = (r for r in results if not r.ok)
    assert failed.job.recipe == b
    assert failed.error.startswith("out of memory on host-")
    assert {r.job.attempt for r in results} == {1}
    assert pool.host_pids == pids


def test_an_exception_of_a_signal_handler_leaves_wait(pool, spec):
    def stop(number, frame):
        raise SystemExit

    before = signal.signal(signal.SIGTERM, stop)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    for job in many(spec, "naps", 16):  # of 0.3 s on two hosts
        pool.submit(job)
    try:
        timer.start()
        with pytest.raises(SystemExit):
            list(iter(pool.wait, None))
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)
    while pool.pending:
        pool.wait()


@pytest.mark.slow
def test_hosts_that_can_no_longer_start_end_the_run_only_when_none_is_left(ray_session, tmp_path):
    from cluster.ray.pool import RayPool

    spec = fault_spec(tmp_path)
    pool = RayPool(spec, hosts=2)
    try:
        file = spec.host.founders[0].path
        save_file({"x": torch.full((4,), 7.0)}, tmp_path / "other")
        os.replace(tmp_path / "other", file)  # not written in place: living hosts have it mapped
        first, second = pool.host_pids.values()
        os.kill(first, signal.SIGKILL)
        events: list[PoolEvent] = []
        until = time.monotonic() + PATIENCE_S
        while "host not started" not in kinds(tuple(events)):
            assert time.monotonic() < until
            assert all(r.ok for r in run_all(pool, many(spec, "naps", 3)))
            events += pool.events()
        assert "digests differ" in events[-1].detail
        assert list(pool.host_pids.values()) == [second]
        pool.start_timeout_s = 3
        os.kill(second, signal.SIGKILL)
        with pytest.raises(PoolError, match=r"(?s)digests differ.*resume the run"):
            list(run_all(pool, many(spec, "naps", 3)))
    finally:
        pool.close()
