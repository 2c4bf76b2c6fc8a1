"""Placement, retries and deadlines, without Ray."""

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


def test_a_draining_node_gets_no_hosts():
    assert room(ClusterNode("n", cpus=8, draining=True), HostNeeds(1)) == 0


def test_hosts_that_follow_the_cluster_fill_every_node():
    needs = HostNeeds(4)
    assert missing(None, [GPUS, CPUS], needs, {}) == ("g",) * 4 + ("c",)
    assert missing(None, [GPUS, CPUS], needs, {"g": 3, "c": 1}) == ("g",)
    assert missing(None, [GPUS, CPUS], needs, {"g": 5}, paused=["c"]) == ()


def test_a_fixed_number_of_hosts_is_kept_wherever_there_is_room():
    assert missing(3, [CPUS], HostNeeds(1), {ANYWHERE: 1}) == (ANYWHERE,) * 2
    assert missing(3, [CPUS], HostNeeds(1), {ANYWHERE: 3}) == ()
    assert missing(3, [CPUS], HostNeeds(1), {ANYWHERE: 1}, paused=[ANYWHERE]) == ()


def test_the_pause_after_failed_starts_doubles_up_to_a_minute():
    pauses = [pause_s(k) for k in range(1, 10)]
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == 60


def job() -> Job:
    return Job(Founder("a", "0"), ())


def lose_all(tracker: RetryTracker, losses: list[Loss]) -> list[Job | str]:
    """Each verdict, until one is final."""
    verdicts: list[Job | str] = [job()]
    for loss in losses:
        last = verdicts[-1]
        assert isinstance(last, Job)
        verdicts.append(tracker.record(last, loss))
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
def test_a_job_fails_after_three_attempts(loss, text):
    verdicts = lose_all(RetryTracker(7), [loss] * MAX_ATTEMPTS)
    assert [v.attempt for v in verdicts[:-1]] == [2, 3]
    assert verdicts[-1] == text


def test_an_error_names_every_different_loss():
    losses = [Loss("host", "killed"), Loss("slow", ""), Loss("scorer", "gone")]
    final = lose_all(RetryTracker(7), losses)[-1]
    assert final.startswith("failed 3 times: lost with its host: killed; took longer")
    assert final.endswith("lost with its scorer: gone")


def test_lost_nodes_are_not_a_jobs_fault_but_not_for_ever():
    verdicts = lose_all(RetryTracker(7), [Loss("node", "went away")] * MAX_LOSSES)
    assert {v.attempt for v in verdicts[:-1]} == {1}
    assert verdicts[-1] == "lost with its node 10 times, last: went away"


def test_losses_are_forgotten_when_a_job_is_done():
    tracker = RetryTracker(7)
    lose_all(tracker, [Loss("host", "")] * 2)
    tracker.forget(job())
    assert isinstance(tracker.record(job(), Loss("host", "")), Job)


def test_a_queue_times_only_its_first_item():
    queue: TimedQueue[str] = TimedQueue()
    assert not queue.overdue(100, 5)
    queue.add("first", 10)
    queue.add("second", 12)
    assert not queue.overdue(15, 5)
    assert queue.overdue(16, 5)
    queue.remove("first", 16)
    assert not queue.overdue(21, 5)  # the second began at 16
    assert queue.overdue(22, 5)
    queue.restart(22)
    assert not queue.overdue(27, 5)


def test_removing_a_later_item_does_not_reset_the_time():
    queue: TimedQueue[str] = TimedQueue()
    queue.add("first", 10)
    queue.add("second", 12)
    queue.remove("second", 14)
    assert queue.overdue(16, 5)
    assert queue.clear() == ("first",)
    assert not queue.overdue(16, 5)
