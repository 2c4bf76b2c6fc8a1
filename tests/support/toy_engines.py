"""An engine of a user's own: torch modules, several individuals in one pass, which may fail."""

from collections.abc import Sequence
from pathlib import Path

import torch

from fitness.engines import MODULE, EngineKind, EngineSpec
from fitness.engines.base import EngineError, PreparedRequests
from fitness.engines.module import ModuleEngine
from fitness.requests import Output
from operators.tensors.low_rank import Adapted
from operators.tensors.weights import Stack

PASSES: list[int] = []
"""Individuals of each pass of this process since a test cleared it."""


class GroupingEngine(ModuleEngine):
    """Runs ``size`` individuals in one pass, or raises what ``fails`` says."""

    fallbacks: tuple[str, ...] = ()

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec.build, device=spec.device)
        self._size, self._fails = int(spec.options.get("size", 4)), spec.options.get("fails", "")

    def model_batch_size(self, prepared: Sequence[PreparedRequests]) -> int:
        return self._size

    def answer_many(
        self, population: Stack | Sequence[Adapted], prepared: PreparedRequests
    ) -> list[list[Output] | EngineError]:
        PASSES.append(len(population))
        if self._fails == "memory":
            raise torch.OutOfMemoryError("of many at once")
        if self._fails:
            raise RuntimeError("no batched kernel for this device")
        found: list[list[Output] | EngineError] = []
        for i in range(len(population)):
            individual = population[i]
            assert not isinstance(individual, Adapted)
            self.install(individual)
            try:
                found.append(self.answer(prepared))
            except EngineError as error:
                found.append(error)
        return found


def make(spec: EngineSpec, base: Path) -> GroupingEngine:
    return GroupingEngine(spec)


GROUPING = EngineKind(
    "grouping",
    make,
    requests=MODULE.requests,
    settings=MODULE.settings,
    required=MODULE.required,
    options=frozenset({"size", "fails"}),
    model_batches=True,
)
