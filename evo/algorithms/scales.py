"""Scales of a path from a flat vector of numbers: for each slot, for each pair of layers, or a network.

Entering layer j after layer i the residual stream is multiplied by W_ij (arXiv 2403.13187, section 3.2).
All genes 0 is every scale 1: a scale is e^g, so that it stays positive and halving is as far as doubling.
"""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from operators.variation.paths import SCALES, Slots

Form: TypeAlias = Literal["none", "step", "matrix", "network"]
HIDDEN = 4  # units of the small network
LIMIT = math.log(SCALES[1])  # |g| at most


def gene_count(form: Form, slots: Slots) -> int:
    """How many genes the scales of a form need."""
    match form:
        case "none":
            return 0
        case "step":
            return slots.count
        case "matrix":
            return (slots.block + 1) * slots.block  # row 0: after the embedding
        case "network":
            return HIDDEN * 4 + HIDDEN


def scales_of(
    form: Form, genes: NDArray[np.float64], taken: Sequence[int], slots: Slots
) -> list[float]:
    """One scale for each slot of ``taken``, in order. ``genes`` has shape (gene_count,)."""
    if form == "none":
        return [1.0] * len(taken)
    logs = []
    before = -1
    for slot in taken:
        layer = slot % slots.block
        if form == "step":
            log = genes[slot]
        elif form == "matrix":
            log = genes.reshape(slots.block + 1, slots.block)[before + 1, layer]
        else:
            log = _network(genes, before / slots.block, layer / slots.block, slot / slots.count)
        logs.append(float(np.clip(log, -LIMIT, LIMIT)))
        before = layer
    return [float(np.exp(v)) for v in logs]


def _network(genes: NDArray[np.float64], before: float, layer: float, place: float) -> float:
    inner = genes[: HIDDEN * 4].reshape(HIDDEN, 4)
    hidden = np.tanh(inner @ np.array([before, layer, place, 1.0]))
    return float(genes[HIDDEN * 4 :] @ hidden)
