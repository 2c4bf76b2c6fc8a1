"""A host's many jobs at once: answered as one by one, to the last bit, whatever fails among them."""

from dataclasses import replace

import pytest
import torch
from toy_pools import make_spec

from cluster.call_size import CallSizer
from cluster.host.build_batches import BatchBuilder
from cluster.host.builder import Builder
from cluster.host.model_host import ModelHost
from cluster.jobs import HostResult, HostStats, Job, PoolSpec, Query, Timing
from fitness.engines.module import ModuleEngine
from operators.recipe import Founder, Noise, linear


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> PoolSpec:
    return make_spec(tmp_path_factory.mktemp("host"))


def mixed(spec: PoolSpec) -> list[Job]:
    """Jobs that succeed, jobs that fail in every way that there is, of several asks."""
    a, b, c = (f.founder for f in spec.host.founders)
    huge = linear({linear({a: 3e38, b: 3e38}): 3.0})
    recipes = [
        a,
        b,
        linear({a: 0.5, c: 0.5}),
        Founder("stranger", "0"),
        huge,
        *(linear({a: k / 9, Noise(k, 0.5, 0): 0.1}) for k in range(1, 9)),
    ]
    queries = [
        (Query("nearness", "dev"),),
        (Query("nearness", "dev"), Query("broken_for_b", "dev")),
    ]
    queries += [(Query("overflows", "dev"),), (Query("nearness", "dev", "influence"),)]
    return [Job(r, x) for x in queries for r in recipes]


def without_times(answers: list[HostResult]) -> list[HostResult]:
    return [replace(answer, timing=Timing()) for answer in answers]


@pytest.mark.parametrize("together", [1, 4])
def test_many_jobs_are_answered_as_one_by_one(spec, together, monkeypatch):
    jobs = mixed(spec)
    one_by_one = ModelHost(spec.host)
    expected = without_times([one_by_one.run(job) for job in jobs])
    host = ModelHost(spec.host)
    monkeypatch.setattr(ModuleEngine, "model_batch_size", lambda self, prepared: together)
    found = host.run_all(jobs)
    assert without_times(found) == expected
    assert {bool(answer.error) for answer in found} == {True, False}
    assert host.stats().jobs == len(jobs)
    assert host.stats().busy_s == pytest.approx(sum(a.timing.total_s for a in found))


def test_an_out_of_memory_error_in_a_batch_is_retried_with_batch_size_1(spec, monkeypatch):
    host = ModelHost(spec.host)
    jobs = [job for job in mixed(spec) if len(job.queries) == 1][:10]
    expected = without_times([ModelHost(spec.host).run(job) for job in jobs])
    monkeypatch.setattr(ModuleEngine, "model_batch_size", lambda self, prepared: 4)
    batches: list[int] = []

    def refuse(self, population, prepared):
        batches.append(len(population))
        raise torch.OutOfMemoryError("of many at once")

    def no_room(self, count):
        raise MemoryError("for many at once")

    monkeypatch.setattr(ModuleEngine, "answer_many", refuse)
    assert without_times(host.run_all(jobs)) == expected
    assert len(batches) == 1  # and never again
    again = ModelHost(spec.host)
    monkeypatch.setattr(Builder, "allocate", no_room)
    assert without_times(again.run_all(jobs)) == expected


@pytest.mark.parametrize("size", [1, 3])
def test_individuals_built_ahead_are_those_built_in_turn_and_stay_until_the_next(spec, size):
    recipes = [job.recipe for job in mixed(spec)]
    groups = [recipes[i : i + size] for i in range(0, len(recipes), size)]

    def digests(ahead: bool) -> list[str]:
        builder = Builder(spec.host.base, spec.host.founders)
        batch_builder = BatchBuilder(builder, str, ahead=ahead)
        found = []
        for batch in batch_builder.build(groups):
            for member in batch.members:
                found.append(member.digest or member.error)
                assert member.built is None or builder.digest(member.built) == member.digest
        return found

    assert digests(ahead=True) == digests(ahead=False)


def test_a_call_is_of_as_many_as_are_worth_one_and_leaves_some_for_the_others(spec):
    queries = (Query("nearness", "dev"),)
    jobs = [Job(spec.host.founders[0].founder, queries)] * 4
    sizer = CallSizer()
    new = HostStats("h", 0, 0)
    assert sizer.size("h", queries, queued=1000, hosts=2) == 1  # nothing is known
    sizer.learn(jobs, new, replace(new, jobs=4, busy_s=0.08))  # 20 ms each
    assert sizer.size("h", queries, queued=1000, hosts=2) == 5
    assert sizer.size("h", queries, queued=10, hosts=2) == 3
    assert sizer.size("h", queries, queued=1, hosts=2) == 1
    assert sizer.size("other", queries, queued=1000, hosts=2) == 1
    sizer.learn(jobs, new, replace(new, jobs=4, busy_s=0.08, useful=8))
    assert sizer.size("h", queries, queued=1000, hosts=2) == 8
    assert sizer.size("h", queries, queued=10, hosts=2) == 5
    sizer.learn(jobs, new, replace(new, jobs=4, busy_s=40.0))
    assert sizer.size("h", queries, queued=1000, hosts=2) == 1
    hurried = CallSizer(limit_s=0.08)  # all of a call in a quarter of what one individual may take
    hurried.learn(jobs, new, replace(new, jobs=4, busy_s=0.02))
    assert hurried.size("h", queries, queued=1000, hosts=2) == 4
