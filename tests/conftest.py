"""What holds for all tests: where their files are, how they are distributed, and one Ray for each worker."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT, SUPPORT

MEMORY = Path("/dev/shm")
ROOM_GIB = (
    8.0  # of free memory: a run of all tests leaves less than one, and Ray keeps objects there too
)

# Ray's workers begin at niceness 15: beside the tests of another worker they would hardly run, and be called lost.
os.environ |= {"RAY_worker_niceness": "0"}

# Processes started by tests import the toys, as Ray's workers must before they get our sys.path.
_OURS = [str(SUPPORT), str(ROOT)]
os.environ["PYTHONPATH"] = os.pathsep.join([*_OURS, *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Put temporary files into memory where there is room: a run waits for the disk 100 times."""
    room = shutil.disk_usage(MEMORY).free if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else 0
    if config.option.basetemp is None and room >= ROOM_GIB * 2**30:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with most slow tests first: no worker begins a long file when the others are done.

    A file's tests all go to one worker (``--dist loadfile --no-loadscope-reorder``), so its fixtures are made once.
    """
    slow: dict[str, int] = {}
    for item in items:
        file = item.nodeid.partition("::")[0]
        slow[file] = slow.get(file, 0) + (item.get_closest_marker("slow") is not None)
    items.sort(key=lambda item: -slow[item.nodeid.partition("::")[0]])


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray of our own with eight logical processors, whose hosts keep shipped founders for it alone."""
    os.environ["EVO_FOUNDERS_CACHE"] = str(tmp_path_factory.mktemp("shipped"))
    from cluster.ray.connect import ray, start_ray

    start_ray(cpus=8)
    yield
    ray.shutdown()
