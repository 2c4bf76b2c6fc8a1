"""Settings of racing."""

from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator


class RacingConfig(BaseModel):
    """Candidates meet the dev examples in rungs; those that cannot be among the best are dropped.

    ``rungs`` are ascending shares of each task's dev examples; a candidate that is left after the last of
    them meets the rest. Each comparison that drops a candidate holds with ``confidence``, over all rungs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rungs: Annotated[tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...], Field(min_length=1)] = (
        0.125,
        0.25,
        0.5,
        0.75,
    )
    confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.95

    @field_validator("rungs")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(a >= b for a, b in pairwise(value)):
            raise ValueError(f"shares of the examples, ascending, got {list(value)}")
        return value
