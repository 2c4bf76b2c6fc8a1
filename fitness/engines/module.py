"""Any ``torch.nn.Module``, scored by functions of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from fitness.engines.base import EngineError, NonFiniteOutputError, PreparedRequests, RequestError
from fitness.engines.install import Installer
from fitness.functions import load_function
from fitness.requests import Call, CallOutput, Output, Request
from operators.tensors.weights import Weights


@dataclass(frozen=True, slots=True)
class _PreparedCalls(PreparedRequests):
    calls: tuple[tuple[Call, Callable[..., Any]], ...]


class ModuleEngine:
    """Answers `Call` with the module that ``build`` makes, in eval mode and without gradients."""

    def __init__(self, build: str, *, device: str = "cpu") -> None:
        """Call ``build`` ("package.module:function") without arguments for the module.

        Raises:
            FunctionNameError: ``build`` leads to no function.
            EngineError: it returned no ``torch.nn.Module``.
        """
        module = load_function(build)()
        if not isinstance(module, nn.Module):
            raise EngineError(
                f"{build!r} returned {type(module).__name__}, not a torch.nn.Module. "
                "It takes no arguments and returns the module whose weights evolve."
            )
        self.module: nn.Module = module.to(device).eval()
        self._installer = Installer(self.module, device=device)

    @property
    def tokens(self) -> None:
        """None: a module reads no tokens."""
        return None

    def prepare(self, requests: Sequence[Request]) -> PreparedRequests:
        """See `Engine.prepare`."""
        calls = []
        for i, request in enumerate(requests):
            if not isinstance(request, Call):
                raise RequestError(
                    f"request {i} is a {type(request).__name__}, which needs a language model; "
                    "this engine runs a module, and answers only metrics that are Python "
                    "functions with data: 'metric: package.module:function' and 'data:'."
                )
            calls.append((request, load_function(request.function)))
        return _PreparedCalls(len(requests), tuple(calls))

    def install(self, weights: Weights) -> None:
        """See `Engine.install`. Names are those of ``module.state_dict()``."""
        self._installer.install(weights)

    def answer(self, prepared: PreparedRequests) -> list[Output]:
        """See `Engine.answer`.

        Raises:
            EngineError: a function did not return a non-empty sequence of numbers.
        """
        if not isinstance(prepared, _PreparedCalls):
            raise RequestError("these requests were prepared by another engine; prepare them here.")
        with torch.inference_mode():
            return [_output(call, f(self.module, call.data)) for call, f in prepared.calls]


def _output(call: Call, returned: Any) -> CallOutput:
    scores = returned.tolist() if isinstance(returned, Tensor) else returned
    values = list(scores) if isinstance(scores, Iterable) else []
    wrong = [v for v in values if not isinstance(v, Real)]
    if wrong or not values:
        got = f"{wrong[0]!r} in it" if wrong else repr(returned)[:80]
        raise EngineError(
            f"{call.function!r} must return a score for each example, as a sequence of numbers "
            f"or a tensor of one dimension; got {got}."
        )
    floats = tuple(float(v) for v in values)
    if not all(isfinite(v) for v in floats):
        raise NonFiniteOutputError(
            f"{call.function!r} returned scores that are not finite for data {call.data!r}: the "
            "weights hold NaN or values far too large. Nothing was scored."
        )
    return CallOutput(floats)
