"""Floating-point dtypes by name."""

import torch

from fitness.engines.base import EngineError


def dtype_of(name: str) -> torch.dtype | None:
    """The floating-point dtype that torch has under ``name``; None for "".

    Raises:
        EngineError: torch has no such dtype.
    """
    if not name:
        return None
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise EngineError(f"engine.dtype: torch has no floating-point dtype {name!r}")
    return dtype
