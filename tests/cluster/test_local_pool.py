"""The local pool shares its process with the caller, whose settings it leaves as they are."""

from collections.abc import Iterator

import pytest
import torch
from toy_pools import jobs_for

from cluster.jobs import PoolSpec
from cluster.local_pool import LocalPool


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_local_pool_computes_with_its_own_threads_and_restores_the_callers(
    two_threads, spec: PoolSpec
):
    pool = LocalPool(spec)
    assert torch.get_num_threads() == 2
    job = jobs_for(spec, "thread_count")[0]
    pool.submit(job)
    result = pool.wait()
    assert set(result.results[0].values) == {spec.host.engine.threads} == {1}
    assert torch.get_num_threads() == 2
    pool.close()
    assert torch.get_num_threads() == 2
