"""Shared fixtures. Ray tests share one Ray for the whole session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Processes started by tests find the toys, as Ray's workers do before they are told where we look.
_HERE = str(Path(__file__).parent)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_HERE, os.environ.get("PYTHONPATH")]))


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray of our own with eight logical processors, whose hosts keep shipped founders for it alone."""
    os.environ["EVO_FOUNDERS_CACHE"] = str(tmp_path_factory.mktemp("shipped"))
    from cluster.connect import ray, start_ray

    start_ray(cpus=8)
    yield
    ray.shutdown()
