"""Which token budget a batch should have on this machine: measured, for a number that is then kept."""

import statistics
from collections.abc import Sequence
from time import perf_counter
from typing import Protocol

from fitness.engine import Engine, Prepared
from fitness.requests import Request

BUDGETS = (1024, 2048, 4096, 16384, 65536)
# Two budgets that differ by less may have done so by chance: the smaller one takes less memory.
_CLEARLY = 0.95
_REPEATS = 5


class Budgeted(Engine, Protocol):
    """An engine whose next `prepare` makes batches of up to ``batch_tokens``."""

    batch_tokens: int


def fastest_budget(engine: Budgeted, requests: Sequence[Request]) -> int:
    """The smallest of BUDGETS that no larger one beats clearly on ``requests``: by medians, in turns."""
    prepared: dict[int, Prepared] = {}
    for budget in BUDGETS:
        engine.batch_tokens = budget
        prepared[budget] = engine.prepare(requests)
        engine.answer(prepared[budget])
    took: dict[int, list[float]] = {budget: [] for budget in BUDGETS}
    for _ in range(_REPEATS):
        for budget in BUDGETS:
            started = perf_counter()
            engine.answer(prepared[budget])
            took[budget].append(perf_counter() - started)
    medians = {budget: statistics.median(seconds) for budget, seconds in took.items()}
    best = BUDGETS[0]
    for budget in BUDGETS[1:]:
        if medians[budget] < _CLEARLY * medians[best]:
            best = budget
    return best
