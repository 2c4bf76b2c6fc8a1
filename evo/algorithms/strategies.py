"""CMA-ES for paths: over the scales of one path, or over paths and their scales in one vector."""

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from cmaes import CMA, SepCMA
from numpy.typing import NDArray

from evo.algorithms.scales import Form, gene_count, scales_of
from operators.variation.paths import Slots

Floats: TypeAlias = NDArray[np.float64]
Bits: TypeAlias = NDArray[np.bool_]
FULL_COVARIANCE: Final = 300  # genes up to which CMA-ES learns all correlations


class Strategy:
    """A CMA-ES that learns from its samples in any order, a population's worth at a time."""

    def __init__(self, cma: CMA | SepCMA) -> None:
        self._cma = cma
        self._heard: list[tuple[Floats, float]] = []

    def ask(self) -> list[Floats]:
        return [self._cma.ask() for _ in range(self._cma.population_size)]

    def tell(self, losses: Sequence[tuple[Floats, float]]) -> None:
        self._heard += losses
        while len(self._heard) >= self._cma.population_size:
            self._cma.tell(self._heard[: self._cma.population_size])
            del self._heard[: self._cma.population_size]


class Flat:
    """CMA-ES over indicators, then scales, in one vector. A slot is taken if its number is > 0."""

    def __init__(
        self,
        slots: Slots,
        own: Bits,
        form: Form,
        seed: int,
        *,
        sigma: float,
        population: int | None,
    ) -> None:
        self._form, self._slots = form, slots
        # Two standard deviations from 0: some slots change in most samples, most slots stay.
        indicator = np.where(own, 2.0, -2.0) * sigma
        mean = np.concatenate([indicator, np.zeros(gene_count(self._form, slots))])
        kind = CMA if len(mean) <= FULL_COVARIANCE else SepCMA
        self.strategy = Strategy(kind(mean, sigma, population_size=population, seed=seed))

    def ask(self, shortest: int, longest: int) -> list[tuple[Floats, Bits, list[float]]]:
        """Samples, and the slots that each takes, with their scales."""
        found = []
        for x in self.strategy.ask():
            indicator, genes = x[: self._slots.count], x[self._slots.count :]
            # Too long or too short: the slots with the greatest numbers are taken.
            wanted = int(np.clip((indicator > 0).sum(), shortest, longest))
            taken = np.zeros(self._slots.count, dtype=np.bool_)
            taken[np.argsort(-indicator, kind="stable")[:wanted]] = True
            slots = [int(s) for s in np.flatnonzero(taken)]
            found.append((x, taken, scales_of(self._form, genes, slots, self._slots)))
        return found
