"""Populations on one transformers model: several individuals in one pass, where that is proved and faster."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitness.batches import MAX_LOGITS, ScoredBatch
from fitness.engine import EngineError
from fitness.install import Installer
from fitness.requests import Output
from fitness.stacked import StackedModel
from fitness.together import COUNTS, Choice, choose
from operators.weights import Layout, Stack, Weights, allocate_stack, layout_of

# The weights of a population, at most.
_STACK_BYTES: Final = 2**29

Scores: TypeAlias = tuple[NDArray[np.float64], NDArray[np.int64]]
"""(log-probability of each scored token, whether it is not the arg-max), each (individuals, scored)."""


@dataclass(frozen=True, slots=True)
class Passes:
    """What a population uses of its engine; ``Any`` are requests that the engine prepared, and models.

    Attributes:
        batches: of requests that are scored; None where some are not.
        scores: of (model, requests, individuals).
        outputs: one individual's, of (requests, its scores).
        alone: the outputs of (weights, requests), whatever these are.
    """

    batches: Callable[[Any], Sequence[ScoredBatch] | None]
    scores: Callable[[Any, Any, int], Scores]
    outputs: Callable[[Any, Scores], list[Output]]
    alone: Callable[[Weights, Any], list[Output]]


class Population:
    """Runs stacks of individuals, in passes of as many as :func:`~fitness.together.choose` finds best:
    once for all for each set of requests, and the dtypes of the weights.
    """

    def __init__(
        self, model: Any, installer: Installer, passes: Passes, *, batch_tokens: int
    ) -> None:
        self._model = model
        self._installer = installer
        self._passes = passes
        self._batch_tokens = batch_tokens
        self._vocabulary = int(model.config.get_text_config().vocab_size)
        self._stacked: StackedModel | None = None
        # With the requests themselves, so that their id is not given out again.
        self._choices: dict[tuple[int, tuple[torch.dtype, ...]], tuple[Any, Choice]] = {}

    def together(self, prepared: Any) -> int:
        """See `Engine.together`; for weights in the dtypes of those installed."""
        return self._choice(prepared, layout_of(dict(self._model.named_parameters()))).count

    def answer(self, stack: Stack, prepared: Any) -> list[list[Output] | EngineError]:
        """See `Engine.answer_many`. Nothing is installed afterwards."""
        choice = self._choice(prepared, stack.layout)
        answers: list[list[Output] | EngineError] = []
        for places in choice.chunks(len(stack)):
            if len(places) == 1:
                answers.append(_tried(partial(self._passes.alone, stack[places[0]], prepared)))
            else:
                answers += self._answer_together(stack[places.start : places.stop], prepared)
        return answers

    def _answer_together(self, stack: Stack, prepared: Any) -> list[list[Output] | EngineError]:
        logprobs, misses = self._run(stack, prepared)
        each = zip(logprobs, misses, strict=True)
        return [_tried(partial(self._passes.outputs, prepared, scores)) for scores in each]

    def _run(self, stack: Stack, prepared: Any) -> Scores:
        if self._stacked is None:
            self._stacked = StackedModel(self._model, self._installer)
        self._stacked.install(stack)
        try:
            return self._passes.scores(self._stacked.model, prepared, len(stack))
        finally:
            self._stacked.release()

    def _choice(self, prepared: Any, layout: Layout) -> Choice:
        key = id(prepared), _dtypes(layout)
        if key not in self._choices:
            self._choices[key] = prepared, self._measured(prepared, layout)
        return self._choices[key][1]

    def _measured(self, prepared: Any, layout: Layout) -> Choice:
        counts = self._counts(prepared, layout)
        if not counts:
            return Choice()
        places = self._installer.places(layout)
        installed = {name: getattr(module, a) for module, a, name, _ in places}
        stack = allocate_stack(layout, counts[-1], next(iter(installed.values())).device)
        for name, tensor in installed.items():
            for i in range(len(stack)):
                # Everybody another model, so that whoever is mixed up with somebody is found out.
                stack.tensors[name][i] = tensor * (1.0 + i / 64)

        def alone(i: int) -> Tensor:
            self._installer.install(stack[i])
            return _tensor(self._passes.scores(self._model, prepared, 1))[0]

        try:
            return choose(alone, lambda n: _tensor(self._run(stack[:n], prepared)), counts)
        # The model is anybody's code, and need not bear to be taken apart: then it runs as it is.
        except Exception:
            return Choice()
        finally:
            self._installer.install(Weights(layout, installed))

    def _counts(self, prepared: Any, layout: Layout) -> list[int]:
        """Those that keep to the budgets of tokens, logits and bytes."""
        batches = self._passes.batches(prepared)
        if not batches:
            return []
        size = sum(s.elements * s.dtype.itemsize for s in layout)
        tokens = max(b.ids.numel() for b in batches)
        logits = self._vocabulary * max(
            b.ids.numel() if b.keep is None else len(b.ids) * len(b.keep) for b in batches
        )
        most = min(_STACK_BYTES // size, self._batch_tokens // tokens, MAX_LOGITS // logits)
        return [count for count in COUNTS if count <= most]


def _dtypes(layout: Layout) -> tuple[torch.dtype, ...]:
    return tuple(sorted({spec.dtype for spec in layout}, key=str))


def _tensor(scores: Scores) -> Tensor:
    return torch.from_numpy(np.concatenate(scores, axis=1))


def _tried(work: Callable[[], list[Output]]) -> list[Output] | EngineError:
    try:
        return work()
    except EngineError as error:
        return error
