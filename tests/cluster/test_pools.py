"""One contract for every pool: each job completes exactly once, with scores or with a reason."""

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest
from toy_pools import jobs_for, make_spec

from cluster.jobs import EngineSpec, Job, JobResult, PoolSpec, Query
from cluster.local_pool import LocalPool
from cluster.pool import Pool, PoolError, run_all
from evo.search.evaluator import Evaluator
from evo.search.objective import Objective, WeighedTask
from operators.recipe import Founder, linear


def in_order(results: Iterable[JobResult]) -> list[JobResult]:
    """Results in the order in which their jobs were submitted."""
    return sorted(results, key=lambda r: r.job.key)


@pytest.fixture(scope="module", params=["local", "ray-1", "ray-2"])
def pool(request, spec) -> Iterator[Pool]:
    if request.param == "local":
        pool: Pool = LocalPool(spec)
    else:
        request.getfixturevalue("ray_session")
        from cluster.ray.pool import RayPool

        pool = RayPool(spec, hosts=int(request.param[-1]))
    yield pool
    pool.close()
    pool.close()  # harmless


def test_every_job_completes_exactly_once_with_its_own_scores(pool, spec):
    a, b, c = (f.founder for f in spec.host.founders)
    recipes = [linear({a: k / 40, b: 1 - k / 40, c: 0.3}) for k in range(1, 40)]
    results = in_order(run_all(pool, jobs_for(spec, recipes=recipes)))
    assert pool.pending == 0
    assert [r.job.recipe for r in results] == recipes
    assert all(r.ok and len(r.results[0].values) == 4 for r in results)
    assert len({r.results[0].values for r in results}) == 39


def test_keys_are_unique_and_each_caller_gets_the_results_that_it_waits_for(pool, spec):
    jobs = jobs_for(spec)
    first, second = ([pool.submit(job) for job in jobs] for _ in range(2))
    assert len({*first, *second}) == 6
    found = [pool.wait([key]).job for key in (*second, *first)]
    assert [job.key for job in found] == [*second, *first]
    assert [job.recipe for job in found] == [job.recipe for job in jobs] * 2
    assert pool.pending == 0


def test_two_evaluators_on_one_pool_each_get_the_scores_of_their_own_individuals(pool, spec):
    a, b, c = (f.founder for f in spec.host.founders)
    recipes = [linear({a: k / 40, b: 1 - k / 40, c: 0.7}) for k in range(1, 21)]
    tasks = tuple(WeighedTask(task) for task in spec.tasks if task.name == "nearness")
    nearness = Objective(tasks)
    expected = {
        r.job.recipe.id: r.results[0].values for r in run_all(pool, jobs_for(spec, recipes=recipes))
    }
    left, other = Evaluator(pool, nearness), Evaluator(pool, nearness)
    for recipe in recipes[:10]:
        left.submit(recipe, "dev")
    found = other.run(recipes[10:], "dev")
    found += [left.wait() for _ in range(10)]
    assert {r.job.recipe.id: tuple(r.results[0].values) for r in found} == expected
    for recipe in recipes:
        Evaluator(pool, nearness).submit(recipe, "dev")  # and nobody waits for it
    late = Evaluator(pool, nearness).run(recipes[::-1], "dev")
    assert [r.job.recipe for r in late] == recipes[::-1]
    assert all(tuple(r.results[0].values) == expected[r.job.recipe.id] for r in late)
    while pool.pending:
        pool.wait()


def test_cancelled_jobs_do_not_run_and_those_that_began_complete(pool, spec):
    a, b, _ = (f.founder for f in spec.host.founders)
    recipes = [linear({a: 1.0, b: k / 100}) for k in range(30)]
    keys = [pool.submit(job) for job in jobs_for(spec, "naps", recipes)]
    before = sum(s.jobs for s in pool.stats())
    taken = pool.wait(keys).job.key
    cancelled = pool.cancel(keys)
    assert cancelled
    assert taken not in cancelled
    rest = set(keys) - cancelled - {taken}
    assert pool.pending == len(rest)
    assert {pool.wait(rest).job.key for _ in tuple(rest)} == rest
    with pytest.raises(LookupError):
        pool.wait(cancelled)
    assert sum(s.jobs for s in pool.stats()) == before + len(rest) + 1
    assert pool.cancel(keys) == frozenset()


def test_completion_in_any_order_changes_no_result(pool, spec):
    quick, slow = (in_order(run_all(pool, jobs_for(spec, f))) for f in ("nearness", "slow_for_a"))
    assert [r.results[0].values for r in quick] == [r.results[0].values for r in slow]


def test_a_function_that_raises_fails_its_job_with_its_message(pool, spec):
    results = {r.job.recipe.name: r for r in run_all(pool, jobs_for(spec, "broken_for_b"))}
    assert results["a"].ok
    assert results["c"].ok
    assert "no fitness for b" in results["b"].error
    assert results["b"].results == ()


def test_weights_that_are_not_finite_fail_by_the_tensors_name(pool, spec):
    a, b, _ = (f.founder for f in spec.host.founders)
    huge = linear({a: 3e38, b: 3e38})
    result = next(iter(run_all(pool, jobs_for(spec, recipes=[linear({huge: 3.0})]))))
    assert not result.ok
    assert "tensor x is not finite" in result.error


def test_outputs_that_are_not_finite_fail_and_the_error_says_that_weights_are_finite(pool, spec):
    result = next(iter(run_all(pool, jobs_for(spec, "overflows")[:1])))
    assert "not finite" in result.error
    assert "all weights are finite" in result.error


def test_a_scoring_function_that_raises_fails_its_job_alone(pool, spec):
    results = {r.job.recipe.name: r for r in run_all(pool, jobs_for(spec, "score_raises_for_b"))}
    assert "scoring" in results["b"].error
    assert "b can't be scored" in results["b"].error
    assert results["a"].ok
    assert results["c"].ok


def test_each_event_is_returned_once(pool):
    for event in pool.events():
        assert event.kind
        assert event.detail
    assert pool.events() == ()


@pytest.mark.parametrize("kind", ["local", "ray"])
def test_a_degraded_host_gives_one_event(kind, spec, request):
    engine = EngineSpec("toy_engines:GROUPING", build="toys:build", options={"fails": "kernel"})
    own = replace(spec, host=replace(spec.host, engine=engine))
    if kind == "local":
        pool: Pool = LocalPool(own)
    else:
        request.getfixturevalue("ray_session")
        from cluster.ray.pool import RayPool

        pool = RayPool(own, hosts=1)
    try:
        events = []
        for _ in range(3):
            assert all(result.ok for result in run_all(pool, jobs_for(spec)))
            events += [event for event in pool.events() if event.kind == "degraded"]
    finally:
        pool.close()
    (event,) = events
    assert "no batched kernel for this device" in event.detail


def test_an_unknown_founder_fails_its_job_not_the_pool(pool, spec):
    stranger = Job(Founder("stranger", "0"), (Query("nearness", "dev"),))
    failed, other = in_order(run_all(pool, [stranger, jobs_for(spec)[0]]))
    assert "stranger" in failed.error
    assert other.ok


def test_waiting_without_a_pending_job_is_an_error(pool):
    with pytest.raises(LookupError):
        pool.wait()


def test_stats_name_every_host(pool, spec):
    before = sum(s.jobs for s in pool.stats())
    list(run_all(pool, jobs_for(spec)))
    stats = pool.stats()
    assert len({s.host for s in stats}) == pool.hosts
    assert sum(s.jobs for s in stats) == before + 3
    assert all(s.peak_bytes > 10**6 for s in stats)


@pytest.fixture(scope="module")
def ray_pool(ray_session, tmp_path_factory):
    from cluster.ray.pool import RayPool

    pool = RayPool(make_spec(tmp_path_factory.mktemp("mortal")), hosts=2)
    yield pool
    pool.close()


def test_a_killed_host_costs_a_retry_not_a_job(ray_pool, spec):
    a, b, _ = (f.founder for f in spec.host.founders)
    recipes = [linear({a: 1.0, b: k / 100}) for k in range(10)]  # each takes 0.2 s
    for job in jobs_for(spec, "slow_for_a", recipes):
        ray_pool.submit(job)
    first = ray_pool.wait()
    os.kill(next(iter(ray_pool.host_pids.values())), signal.SIGKILL)
    results = [first, *(ray_pool.wait() for _ in range(9))]
    assert {r.job.recipe for r in results} == set(recipes)
    assert all(r.ok for r in results)
    assert max(r.job.attempt for r in results) == 2
    assert ray_pool.hosts >= 1


def test_a_job_that_lost_its_host_is_done_again(ray_pool, spec):
    results = list(run_all(ray_pool, jobs_for(spec, "once_deadly")))
    assert all(r.ok for r in results)
    assert max(r.job.attempt for r in results) == 2


def test_a_candidate_that_kills_every_host_fails_and_no_other_does(ray_pool, spec):
    results = {r.job.recipe.name: r for r in run_all(ray_pool, jobs_for(spec, "deadly"))}
    assert "lost with its host 3 times" in results["b"].error
    assert results["a"].ok
    assert results["c"].ok


def crowd(spec: PoolSpec, function: str, size: int = 41) -> list[Job]:
    """Small jobs, with founder b in the middle."""
    a, b, c = (f.founder for f in spec.host.founders)
    recipes = [linear({a: k / size, c: 1 - k / size}) for k in range(1, size)]
    return jobs_for(spec, function, [*recipes[: size // 2], b, *recipes[size // 2 :]])


def warm_up(pool: Pool, spec: PoolSpec, function: str) -> None:
    """Run jobs until every host was timed, so that small jobs share calls."""
    while pool.hosts < 2 or any(s.jobs < 2 for s in pool.stats()):
        list(run_all(pool, [j for j in crowd(spec, function) if j.recipe.id != b_of(spec).id]))
    pool.events()


def b_of(spec: PoolSpec) -> Founder:
    return spec.host.founders[1].founder


def test_a_candidate_that_kills_hosts_does_not_fail_the_jobs_of_its_call(ray_pool, spec):
    warm_up(ray_pool, spec, "deadly")
    results = list(run_all(ray_pool, crowd(spec, "deadly")))
    assert len({r.job.key for r in results}) == 41
    (failed,) = (r for r in results if not r.ok)
    assert failed.job.recipe == b_of(spec)
    assert "lost with its host 3 times" in failed.error
    assert all(r.job.attempt <= 2 for r in results if r.ok)
    lost = [e.detail for e in ray_pool.events() if e.kind == "host lost"]
    # It was in a call with others at first. A call whose answers were not delivered may be lost, too.
    *in_calls, first, second, third = lost
    assert in_calls
    assert all("one of the jobs" in detail for detail in in_calls)
    assert all(d.endswith(f"it was running job {failed.job.key}") for d in (first, second, third))


def test_a_host_killed_in_a_call_of_several_jobs_costs_none_an_attempt(ray_pool, spec):
    warm_up(ray_pool, spec, "naps")
    jobs = crowd(spec, "naps", 61)
    for job in jobs:
        ray_pool.submit(job)
    first = ray_pool.wait()
    os.kill(next(iter(ray_pool.host_pids.values())), signal.SIGKILL)
    results = [first, *(ray_pool.wait() for _ in jobs[1:])]
    assert len({r.job.key for r in results}) == 61
    assert all(r.ok for r in results)
    (lost,) = (e.detail for e in ray_pool.events() if e.kind == "host lost")
    assert "one of the jobs" in lost
    assert {r.job.attempt for r in results} == {1}


def test_calls_of_several_jobs_change_no_result(pool, spec):
    jobs = crowd(spec, "broken_for_b")
    alone = [next(iter(run_all(pool, [job]))) for job in jobs]
    many = in_order(run_all(pool, jobs))
    for one, other in zip(alone, many, strict=True):
        assert (one.results, one.error, one.execution) == (
            other.results,
            other.error,
            other.execution,
        )
    assert [r.job.recipe for r in alone if not r.ok] == [b_of(spec)]


def test_a_host_that_cannot_start_is_refused_with_its_reason(ray_session, tmp_path):
    from cluster.ray.pool import RayPool

    spec = make_spec(tmp_path)
    spec.host.founders[0].path.write_bytes(spec.host.founders[1].path.read_bytes())
    with pytest.raises(PoolError, match="digests differ"):
        RayPool(spec, hosts=1)


def test_more_hosts_than_the_cluster_has_room_for_is_an_error_not_a_hang(ray_session, spec):
    from cluster.ray.pool import RayPool

    with pytest.raises(PoolError, match=r"30 hosts of 1 threads did not start within 3 s"):
        RayPool(spec, hosts=30, start_timeout_s=3)
