"""Fixtures of the pools' tests."""

import pytest
from toy_pools import make_spec

from cluster.jobs import PoolSpec


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> PoolSpec:
    return make_spec(tmp_path_factory.mktemp("founders"))
