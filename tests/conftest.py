"""Shared fixtures. Ray tests share one Ray for the whole session."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings
from places import ROOT, SUPPORT

# A deadline for an example would measure the machine's load, not the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# Processes started by tests find the toys, as Ray's workers do before they are told where we look.
_OURS = [str(SUPPORT), str(ROOT)]
os.environ["PYTHONPATH"] = os.pathsep.join([*_OURS, *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray of our own with eight logical processors, whose hosts keep shipped founders for it alone."""
    os.environ["EVO_FOUNDERS_CACHE"] = str(tmp_path_factory.mktemp("shipped"))
    from cluster.ray.connect import ray, start_ray

    start_ray(cpus=8)
    yield
    ray.shutdown()
