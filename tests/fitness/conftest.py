"""Fixtures of the engines' tests."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fitness.engines.hf.model_batch import runner
from fitness.engines.hf.model_batch.size import ModelBatchSize, measure_size


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The largest group with the right bits, whatever the clock says; on one thread, as a host by default.

    With more, some processors add in another order for a group than for one, and no group has the right bits.
    """

    def most(alone: Any, group: Any, counts: Any, clock: Any) -> ModelBatchSize:
        proved = measure_size(alone, group, counts, clock=lambda: 0.0).proved
        return ModelBatchSize(proved[-1], proved)

    monkeypatch.setattr(runner, "measure_size", most)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
