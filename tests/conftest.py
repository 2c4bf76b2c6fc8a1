"""Shared fixtures. Ray tests share one Ray for the whole session."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A Ray of our own with eight logical processors."""
    from cluster.connect import ray, start_ray

    start_ray(cpus=8)
    yield
    ray.shutdown()
