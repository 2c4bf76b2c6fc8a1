"""Shared fixtures. Ray tests share one Ray for the whole session."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray of our own with eight logical processors, whose hosts keep shipped founders for it alone."""
    os.environ["EVO_FOUNDERS_CACHE"] = str(tmp_path_factory.mktemp("shipped"))
    from cluster.connect import ray, start_ray

    start_ray(cpus=8)
    yield
    ray.shutdown()
