"""Fixtures of the engines' tests."""

from typing import Any

import pytest

from fitness.engines.hf.model_batch import runner
from fitness.engines.hf.model_batch.size import ModelBatchSize, measure_size


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest group with the right bits, whatever the clock says."""

    def most(alone: Any, group: Any, counts: Any, clock: Any) -> ModelBatchSize:
        proved = measure_size(alone, group, counts, clock=lambda: 0.0).proved
        return ModelBatchSize(proved[-1], proved)

    monkeypatch.setattr(runner, "measure_size", most)
