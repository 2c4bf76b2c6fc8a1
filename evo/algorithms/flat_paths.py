"""FlatPaths: CMA-ES over paths and their scales in one vector, as published.

Source: arXiv 2403.13187, section 3.2 (data-flow space).
"""

from typing import Final, TypeAlias

import numpy as np
from cmaes import CMA, SepCMA
from numpy.typing import NDArray

from evo.algorithms.optimizers import CmaEs, Proposal
from evo.algorithms.scales import Form, gene_count, scales_of
from operators.variation.paths import Slots

Floats: TypeAlias = NDArray[np.float64]
Bits: TypeAlias = NDArray[np.bool_]
FULL_COVARIANCE: Final = 300  # genes up to which CMA-ES learns all correlations


class FlatPaths:
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
        self.optimizer = CmaEs(kind(mean, sigma, population_size=population, seed=seed))

    def ask(self, shortest: int, longest: int) -> list[tuple[Proposal, Bits, list[float]]]:
        """Proposals, the slots that each takes (shape (slots,)), and the scales of those slots."""
        found = []
        for proposal in self.optimizer.ask():
            indicator, genes = np.split(proposal.x, [self._slots.count])
            # Too long or too short: the slots with the greatest numbers are taken.
            wanted = int(np.clip((indicator > 0).sum(), shortest, longest))
            taken = np.zeros(self._slots.count, dtype=np.bool_)
            taken[np.argsort(-indicator, kind="stable")[:wanted]] = True
            slots = [int(s) for s in np.flatnonzero(taken)]
            found.append((proposal, taken, scales_of(self._form, genes, slots, self._slots)))
        return found
