"""Errors of individuals: what an exception says, as text for the lineage."""

from dataclasses import dataclass
from typing import Final

import torch

from fitness.engines.base import NonFiniteOutputError
from fitness.engines.memory import is_out_of_memory
from operators.build.paths import LayerPath
from operators.tensors.low_rank import Adapted
from operators.tensors.weights import Weights

OUT_OF_MEMORY: Final = "out of memory"  # such an error begins with it


@dataclass(frozen=True, slots=True)
class Explain:
    """Turns an exception into the error of the individual that raised it, on the host ``name``."""

    name: str
    memory_gib: float | None

    def __call__(
        self, raised: Exception, built: Weights | LayerPath | Adapted | None = None
    ) -> str:
        text = f"{type(raised).__name__}: {raised}".removesuffix(": ")
        if is_out_of_memory(raised):
            gib = self.memory_gib
            limit = f"; pool.memory_gib allows {gib:g} GiB beside the founders" if gib else ""
            return f"{OUT_OF_MEMORY} on {self.name} ({text}{limit})"
        if isinstance(raised, NonFiniteOutputError) and isinstance(built, Weights):
            bad = _first_non_finite(built)
            finite = " (all weights are finite, the outputs are not)"
            text += f" (tensor {bad} is not finite)" if bad else finite
        return text


def _first_non_finite(weights: Weights) -> str | None:
    return next((n for n, t in weights.tensors.items() if not bool(torch.isfinite(t).all())), None)
