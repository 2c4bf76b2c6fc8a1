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
from operators.build.paths import LayerPath
from operators.tensors.low_rank import Adapted
from operators.tensors.weights import Stack, Weights


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
        """See `Engine.tokens`: what a module reads, its functions know."""
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

    def install_path(self, path: LayerPath) -> None:
        """Refused: how a module's layers follow each other is in its code.

        Raises:
            EngineError: always.
        """
        raise EngineError("data-flow paths need a language model: engine.kind: hf")

    def install_adapted(self, individual: Adapted) -> None:
        """Refused: where a module multiplies by its weights is in its code.

        Raises:
            EngineError: always.
        """
        raise EngineError("factors are applied to a language model only: engine.kind: hf")

    def influence(self, prepared: PreparedRequests) -> list[float]:
        """Refused, as `install_path` is.

        Raises:
            EngineError: always.
        """
        raise EngineError("block influence needs a language model: engine.kind: hf")

    def answer(self, prepared: PreparedRequests) -> list[Output]:
        """See `Engine.answer`.

        Raises:
            EngineError: a function did not return a non-empty sequence of numbers.
        """
        if not isinstance(prepared, _PreparedCalls):
            raise RequestError("these requests were prepared by another engine; prepare them here.")
        with torch.inference_mode():
            return [_output(call, f(self.module, call.data)) for call, f in prepared.calls]

    def model_batch_size(self, prepared: Sequence[PreparedRequests]) -> int:
        """See `Engine.model_batch_size`: one by one."""
        return 1

    def answer_many(
        self, population: Stack | Sequence[Adapted], prepared: PreparedRequests
    ) -> list[list[Output] | EngineError]:
        """See `Engine.answer_many`."""
        each = (population[i] for i in range(len(population)))
        return [self._answer_one(individual, prepared) for individual in each]

    def _answer_one(
        self, individual: Weights | Adapted, prepared: PreparedRequests
    ) -> list[Output] | EngineError:
        try:
            if isinstance(individual, Adapted):
                self.install_adapted(individual)
            else:
                self.install(individual)
            return self.answer(prepared)
        except EngineError as error:
            return error


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
