"""Shared by tests: taken out of test_population."""

from typing import Any

import pytest
from hf_engines import PAIRS

from fitness.engines.hf.model_batch import runner
from fitness.engines.hf.model_batch.size import ModelBatchSize, measure_size
from fitness.requests import LogLikelihood, RollingLogLikelihood

REQUESTS = [
    *PAIRS,
    RollingLogLikelihood("some text " * 8),
    *(LogLikelihood("choices share a long beginning: ", f"{c}{c}") for c in "abcd"),
]


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest group with the right bits, whatever the clock says."""

    def most(alone: Any, group: Any, counts: Any, clock: Any) -> ModelBatchSize:
        proved = measure_size(alone, group, counts, clock=lambda: 0.0).proved
        return ModelBatchSize(proved[-1], proved)

    monkeypatch.setattr(runner, "measure_size", most)
