"""Where hosts go, which work is redone and when time is up: pure, so tested without Ray."""

import pytest

from cluster.jobs import Job
from cluster.ray.placement import ANYWHERE, ClusterNode, HostNeeds, missing, pause_s, room
from cluster.ray.retries import MAX_ATTEMPTS, MAX_LOSSES, Loss, RetryTracker, TimedQueue
from operators.recipe import Founder

GPUS = ClusterNode("g", cpus=16, gpus=4, memory=64 * 2**30, labels={"zone": "a"})
CPUS = ClusterNode("c", cpus=7, memory=16 * 2**30)


@pytest.mark.parametrize(
    ("needs", "on_gpus", "on_cpus"),
    [
        (HostNeeds(2), 8, 3),
        (HostNeeds(1, gpus=1), 4, 0),
        (HostNeeds(8, gpus=1), 2, 0),  # processors run out first
        (HostNeeds(1, gpus=0.5), 8, 0),
        (HostNeeds(1, gpus=0.4), 8, 0),  # a fraction is of one GPU: two each
        (HostNeeds(1, gpus=0.25), 16, 0),
        (HostNeeds(1, gpus=2), 2, 0),
        (HostNeeds(1, memory=8 * 2**30), 8, 2),
        (HostNeeds(1, labels={"zone": "a"}), 16, 0),
        (HostNeeds(1, labels={"zone": "b"}), 0, 0),
        (HostNeeds(32), 0, 0),
    ],
)
def test_a_node_holds_as_many_hosts_as_fit(needs, on_gpus, on_cpus):
    assert (room(GPUS, needs), room(CPUS, needs)) == (on_gpus, on_cpus)


def test_a_tenth_of_a_gpu_is_ten_hosts():
    assert room(ClusterNode("n", cpus=64, gpus=1), HostNeeds(1, gpus=0.1)) == 10


def test_a_node_that_is_drained_gets_no_hosts():
    assert room(ClusterNode("n", cpus=8, draining=True), HostNeeds(1)) == 0


def test_hosts_that_follow_the_cluster_fill_every_node():
    needs = HostNeeds(4)
    assert missing(None, [GPUS, CPUS], needs, {}) == ("g",) * 4 + ("c",)
    assert missing(None, [GPUS, CPUS], needs, {"g": 3, "c": 1}) == ("g",)
    assert missing(None, [GPUS, CPUS], needs, {"g": 5}, resting=["c"]) == ()


def test_a_fixed_number_of_hosts_is_kept_wherever_there_is_room():
    assert missing(3, [CPUS], HostNeeds(1), {ANYWHERE: 1}) == (ANYWHERE,) * 2
    assert missing(3, [CPUS], HostNeeds(1), {ANYWHERE: 3}) == ()
    assert missing(3, [CPUS], HostNeeds(1), {ANYWHERE: 1}, resting=[ANYWHERE]) == ()


def test_a_place_where_hosts_fail_to_start_is_tried_ever_more_seldom():
    pauses = [pause_s(k) for k in range(1, 10)]
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == 60


def job() -> Job:
    return Job(Founder("a", "0"), ())


def lose_all(ledger: RetryTracker, losses: list[Loss]) -> list[Job | str]:
    """Each verdict, until one is final."""
    verdicts: list[Job | str] = [job()]
    for loss in losses:
        last = verdicts[-1]
        assert isinstance(last, Job)
        verdicts.append(ledger.lose(last, loss))
    return verdicts[1:]


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (Loss("host", "killed"), "lost with its host 3 times, last: killed"),
        (Loss("slow", "x"), "took longer than pool.deadline_s (7 s) on 3 hosts"),
        (Loss("slow scoring", "x"), "scoring took longer than pool.deadline_s (7 s) 3 times"),
        (Loss("scorer", "killed"), "scoring: lost with its scorer 3 times, last: killed"),
    ],
)
def test_a_job_that_is_to_blame_fails_after_three_attempts(loss, text):
    verdicts = lose_all(RetryTracker(7), [loss] * MAX_ATTEMPTS)
    assert [v.attempt for v in verdicts[:-1]] == [2, 3]
    assert verdicts[-1] == text


def test_different_losses_are_all_told():
    losses = [Loss("host", "killed"), Loss("slow", ""), Loss("scorer", "gone")]
    final = lose_all(RetryTracker(7), losses)[-1]
    assert final.startswith("failed 3 times: lost with its host: killed; took longer")
    assert final.endswith("lost with its scorer: gone")


def test_lost_nodes_are_not_a_jobs_fault_but_not_for_ever():
    verdicts = lose_all(RetryTracker(7), [Loss("node", "went away")] * MAX_LOSSES)
    assert {v.attempt for v in verdicts[:-1]} == {1}
    assert verdicts[-1] == "lost with its node 10 times, last: went away"


def test_what_a_job_lost_is_forgotten_when_it_is_done():
    ledger = RetryTracker(7)
    lose_all(ledger, [Loss("host", "")] * 2)
    ledger.forget(job())
    assert isinstance(ledger.lose(job(), Loss("host", "")), Job)


def test_the_clock_of_a_lane_runs_for_the_first_in_it_alone():
    lane: TimedQueue[str] = TimedQueue()
    assert not lane.overdue(100, 5)
    lane.add("first", 10)
    lane.add("second", 12)
    assert not lane.overdue(15, 5)
    assert lane.overdue(16, 5)
    lane.remove("first", 16)
    assert not lane.overdue(21, 5)  # the second began at 16
    assert lane.overdue(22, 5)
    lane.restart(22)
    assert not lane.overdue(27, 5)


def test_what_waits_can_leave_without_stopping_the_clock():
    lane: TimedQueue[str] = TimedQueue()
    lane.add("first", 10)
    lane.add("second", 12)
    lane.remove("second", 14)
    assert lane.overdue(16, 5)
    assert lane.clear() == ("first",)
    assert not lane.overdue(16, 5)
