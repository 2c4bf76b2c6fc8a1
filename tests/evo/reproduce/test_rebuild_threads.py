"""A rebuild uses the run's number of threads, whatever the caller's is."""

from collections.abc import Iterator

import pytest
import torch
from wide_adapters import wide_config

import evo.lineage
from evo.evolution import Evolution
from evo.reproduce.rebuild import rebuild
from operators.recipe import Merge


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_low_rank_merges_are_rebuilt_with_the_threads_of_the_run(two_threads, tmp_path):
    with Evolution(wide_config(tmp_path / "founders"), tmp_path / "run") as run:
        for _ in run:
            pass
    torch.set_num_threads(2)
    lineage = evo.lineage.open(tmp_path / "run")
    merged = [
        i for i in lineage.individuals["id"].to_pylist() if isinstance(lineage.recipe(i), Merge)
    ]
    assert merged
    assert all(rebuild(lineage, name).same for name in merged)
    assert torch.get_num_threads() == 2
