"""A host's many jobs at once: answered as one by one, to the last bit, whatever fails among them."""

from dataclasses import replace

import pytest
from toy_engines import PASSES
from toy_pools import make_spec

from cluster.call_size import CallSizer
from cluster.host.build_batches import BatchBuilder
from cluster.host.builder import Builder
from cluster.host.model_host import ModelHost
from cluster.jobs import EngineSpec, HostResult, HostSpec, HostStats, Job, PoolSpec, Query, Timing
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


def grouping(spec: PoolSpec, **options) -> HostSpec:
    """The host with an engine that runs several individuals in one pass."""
    engine = EngineSpec("toy_engines:GROUPING", build="toys:build", options=options)
    return replace(spec.host, engine=engine)


@pytest.mark.parametrize("size", [1, 4])
def test_many_jobs_are_answered_as_one_by_one(spec, size):
    jobs = mixed(spec)
    one_by_one = ModelHost(spec.host)
    expected = without_times([one_by_one.run(job) for job in jobs])
    host = ModelHost(grouping(spec, size=size))
    found = host.run_all(jobs)
    expected = [
        replace(r, error=r.error.replace("kind: module", "kind: toy_engines:GROUPING"))
        for r in expected
    ]
    assert without_times(found) == expected
    assert {bool(answer.error) for answer in found} == {True, False}
    assert host.stats().degraded == ()
    assert host.stats().jobs == len(jobs)
    assert host.stats().busy_s == pytest.approx(sum(a.timing.total_s for a in found))


@pytest.mark.parametrize("fails", ["memory", "kernel"])
def test_a_model_batch_that_fails_is_run_one_by_one_and_reported(spec, fails):
    jobs = [job for job in mixed(spec) if len(job.queries) == 1][5:13]  # each succeeds alone
    expected = without_times([ModelHost(spec.host).run(job) for job in jobs])
    host = ModelHost(grouping(spec, fails=fails))
    PASSES.clear()
    assert without_times(host.run_all(jobs)) == expected
    assert len(PASSES) == 1  # and never again
    (reason,) = host.stats().degraded
    assert "model batch of 4 failed" in reason
    assert ("out of memory" if fails == "memory" else "no batched kernel") in reason


def test_a_model_batch_that_one_individual_breaks_is_not_degraded(spec):
    jobs = [job for job in mixed(spec) if job.queries == (Query("overflows", "dev"),)][5:9]
    host = ModelHost(grouping(spec, fails="kernel"))
    assert all(result.error for result in host.run_all(jobs))
    assert host.stats().degraded == ()


def test_without_groups_every_individual_runs_alone(spec):
    jobs = mixed(spec)
    PASSES.clear()
    own = grouping(spec)
    ModelHost(replace(own, engine=replace(own.engine, group="off"))).run_all(jobs)
    assert PASSES == []


def test_a_build_batch_that_lacks_memory_is_built_one_by_one_and_reported(spec, monkeypatch):
    jobs = [job for job in mixed(spec) if len(job.queries) == 1][:10]
    expected = without_times([ModelHost(spec.host).run(job) for job in jobs])

    def no_room(builder, count):
        raise MemoryError("for many at once")

    monkeypatch.setattr(Builder, "allocate", no_room)
    host = ModelHost(spec.host)
    assert without_times(host.run_all(jobs)) == expected
    (reason,) = host.stats().degraded
    assert "one at a time" in reason
    assert "for many at once" in reason


def test_a_build_batch_that_fails_is_built_one_by_one_and_reported(spec, monkeypatch):
    jobs = [job for job in mixed(spec) if len(job.queries) == 1][5:10]
    expected = without_times([ModelHost(spec.host).run(job) for job in jobs])
    build_all = Builder.build_all

    def broken(builder, recipes, outs):
        if len(recipes) > 1:
            raise ValueError("two at once")
        return build_all(builder, recipes, outs)

    monkeypatch.setattr(Builder, "build_all", broken)
    host = ModelHost(spec.host)
    assert without_times(host.run_all(jobs)) == expected
    (reason,) = host.stats().degraded
    assert "build batch of 5 failed: ValueError: two at once" in reason


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


def test_a_call_has_as_many_jobs_as_take_a_tenth_of_a_second_and_at_most_a_share(spec):
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
