"""The fastest token budget of a batch on this machine, measured once and then kept."""

import statistics
from collections.abc import Sequence
from time import perf_counter
from typing import Protocol, runtime_checkable

from fitness.engines.base import Engine, PreparedRequests
from fitness.engines.memory import free_memory, is_out_of_memory
from fitness.requests import Request

BUDGETS = (1024, 2048, 4096, 16384, 65536)
# A smaller difference may be chance, and the smaller budget takes less memory.
_CLEARLY = 0.95
_REPEATS = 5
_SECONDS = 60.0  # then measuring stops: long times vary little


@runtime_checkable
class HasTokenBudget(Engine, Protocol):
    """An engine whose next `prepare` makes batches of up to ``batch_tokens``."""

    batch_tokens: int


def fastest_budget(engine: HasTokenBudget, requests: Sequence[Request]) -> int:
    """The smallest of BUDGETS that no larger one beats by 5 % on ``requests``, by medians of interleaved runs.

    Budgets that memory is too small for are left out.

    Raises:
        Exception: the model's own error, also out of memory with the smallest budget.
    """
    began = perf_counter()
    prepared: dict[int, PreparedRequests] = {}
    took: dict[int, list[float]] = {}
    for budget in BUDGETS:
        engine.batch_tokens = budget
        try:
            prepared[budget] = engine.prepare(requests)
            took[budget] = [_seconds(engine, prepared[budget])]
        except Exception as error:
            if budget == BUDGETS[0] or not is_out_of_memory(error):
                raise
            break
    free_memory()
    for _ in range(_REPEATS):
        if perf_counter() - began > _SECONDS:
            break
        for budget, seconds in took.items():
            seconds.append(_seconds(engine, prepared[budget]))
    # The first run warms up caches and allocators.
    medians = {budget: statistics.median(times[1:] or times) for budget, times in took.items()}
    best = BUDGETS[0]
    for budget in BUDGETS[1 : len(medians)]:
        if medians[budget] < _CLEARLY * medians[best]:
            best = budget
    return best


def _seconds(engine: HasTokenBudget, prepared: PreparedRequests) -> float:
    started = perf_counter()
    engine.answer(prepared)
    return perf_counter() - started
