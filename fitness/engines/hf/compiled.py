"""A model through torch.compile, such that its answers depend on nothing but what it is asked."""

from typing import Any

import torch

from fitness.engines.base import EngineError


def compiled(model: Any, device: str) -> Any:
    """``model``, compiled anew for each shape that it meets: kernels for several shapes would depend on which
    came first, and so would the last bits of an answer.

    Raises:
        EngineError: torch can't compile here.
    """
    from torch._dynamo import config, exc

    # Beyond its limit torch runs what it has not compiled, without a word and with other last bits.
    config.recompile_limit = config.accumulated_recompile_limit = 2**31
    try:
        torch.compile(torch.neg)(torch.ones(8, device=device))
    except exc.TorchDynamoException as error:
        reason = str(error).split("\n", 1)[0]
        raise EngineError(
            f"engine.compile: torch.compile does not work here ({reason}). On a CPU it needs a C++ compiler: "
            "install g++, or set CXX to one; else leave engine.compile out"
        ) from error
    return torch.compile(model, dynamic=False)
