"""Which token budget a batch should have on this machine: measured, for a number that is then kept."""

import statistics
from collections.abc import Sequence
from time import perf_counter
from typing import Protocol

from fitness.engines.base import Engine, PreparedRequests
from fitness.engines.memory import free_memory, is_out_of_memory
from fitness.requests import Request

BUDGETS = (1024, 2048, 4096, 16384, 65536)
# Two budgets that differ by less may have done so by chance: the smaller one takes less memory.
_CLEARLY = 0.95
_REPEATS = 5
_SECONDS = 60.0  # after so many nothing is repeated any more: what takes long varies little


class BatchingEngine(Engine, Protocol):
    """An engine whose next `prepare` makes batches of up to ``batch_tokens``."""

    batch_tokens: int


def fastest_budget(engine: BatchingEngine, requests: Sequence[Request]) -> int:
    """The smallest of BUDGETS that no larger one beats clearly on ``requests``: by medians, in turns.

    Those for which memory is too small are left out, unless it is too small for all.
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
    # The first of several was slower for reasons of its own.
    medians = {budget: statistics.median(times[1:] or times) for budget, times in took.items()}
    best = BUDGETS[0]
    for budget in BUDGETS[1 : len(medians)]:
        if medians[budget] < _CLEARLY * medians[best]:
            best = budget
    return best


def _seconds(engine: BatchingEngine, prepared: PreparedRequests) -> float:
    started = perf_counter()
    engine.answer(prepared)
    return perf_counter() - started
