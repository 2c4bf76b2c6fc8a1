"""Populations on one transformers model: several individuals in one pass, where that is proved and faster."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter, thread_time
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fitness.engines.base import EngineError
from fitness.engines.hf.model_batch.low_rank import AdaptedModel
from fitness.engines.hf.model_batch.size import COUNTS, ModelBatchSize, measure_size
from fitness.engines.hf.model_batch.stacked import StackedModel, UnstackableError
from fitness.engines.hf.rows.batches import MAX_LOGITS, MAX_TREE, ScoredBatch
from fitness.engines.install import Installer
from fitness.requests import Output
from operators.tensors.low_rank import Adapted, Factors
from operators.tensors.weights import Layout, Stack, Weights, allocate_stack, layout_of

# A processor computes activations so many at a time, and those left over at the end (of what each thread
# has) by other code, which rounds otherwise now and then: too seldom for any proof to meet it.
_AT_A_TIME: Final = 32
# The weights of a stack, at most.
_STACK_BYTES: Final = 2**29

TokenScores: TypeAlias = tuple[NDArray[np.float64], NDArray[np.int64]]
"""(log-probability of each scored token, whether it is not the arg-max), each (individuals, scored)."""

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Passes:
    """What a population uses of its engine; ``Any`` are requests that the engine prepared, and models.

    Attributes:
        plain: the model that answers for weights that are installed by themselves; it may be compiled.
        batches: of requests that are scored; None where some are not.
        scores: of (model, requests, individuals).
        evidence: of the same, shape (individuals, ...): where two are equal, so is every logit that their
            scores come from, to the last bit. The scores alone, of a shallow model, may hide what differs.
        outputs: one individual's, of (requests, its scores).
        alone: the outputs of (individual, requests), whatever these are.
        batch_tokens: padded tokens a batch, at most.
    """

    plain: Any
    batches: Callable[[Any], Sequence[ScoredBatch] | None]
    scores: Callable[[Any, Any, int], TokenScores]
    evidence: Callable[[Any, Any, int], Tensor]
    outputs: Callable[[Any, TokenScores], list[Output]]
    alone: Callable[[Weights | Adapted, Any], list[Output]]
    batch_tokens: Callable[[], int]


class ModelBatches:
    """Runs individuals in passes of as many as :func:`~fitness.engines.hf.model_batch.size.measure_size` finds best: once for all
    for each set of requests, and the dtypes of the weights.
    """

    def __init__(self, model: Any, installer: Installer, passes: Passes, *, device: str) -> None:
        self._model = model
        self._installer = installer
        self._passes = passes
        self._device = device
        self._vocabulary = int(model.config.get_text_config().vocab_size)
        head = model.get_output_embeddings()
        # Of attention there are no activations, but rows of a softmax, each computed by itself.
        self._widths = {
            _width(module)
            for name, module in model.named_modules()
            if module is not head and "attn" not in name and "attention" not in name
        } - {0}
        self._stacked: StackedModel | None = None
        self._applied: AdaptedModel | None = None
        self.fallbacks: list[str] = []
        # With the requests themselves, so that their id is not given out again.
        self._choices: dict[tuple[object, ...], tuple[Any, ModelBatchSize]] = {}

    def model_batch_size(self, prepared: Any) -> int:
        """See `Engine.model_batch_size`; for weights in the dtypes of those installed."""
        return self._stack_choice(prepared, layout_of(dict(self._model.named_parameters()))).count

    def answer(
        self, individuals: Stack | Sequence[Adapted], prepared: Any
    ) -> list[list[Output] | EngineError]:
        """See `Engine.answer_many`."""
        if isinstance(individuals, Stack):
            choice = self._stack_choice(prepared, individuals.layout)
        else:
            choice = self._applied_choice(prepared, individuals)
        answers: list[list[Output] | EngineError] = []
        for places in choice.chunks(len(individuals)):
            if len(places) == 1:
                one = individuals[places.start]
                answers.append(_tried(partial(self._passes.alone, one, prepared)))
            else:
                some = individuals[places.start : places.stop]
                scores = self._run(some, prepared, self._passes.scores)
                each = zip(*scores, strict=True)
                answers += [_tried(partial(self._passes.outputs, prepared, s)) for s in each]
        return answers

    def applied(self) -> AdaptedModel:
        """The model that runs individuals as factors.

        Raises:
            EngineError: this model can't.
        """
        if self._applied is None:
            try:
                self._applied = AdaptedModel(self._model, self._device)
            except UnstackableError as error:
                raise EngineError(f"{error}. Use engine.adapters: merge") from error
        return self._applied

    def _run(
        self,
        individuals: Stack | Sequence[Adapted],
        prepared: Any,
        what: Callable[[Any, Any, int], _Found],
    ) -> _Found:
        shell: StackedModel | AdaptedModel
        if isinstance(individuals, Stack):
            if self._stacked is None:
                self._stacked = StackedModel(self._model, self._installer)
            shell = self._stacked
            shell.install(individuals)
        else:
            shell = self.applied()
            shell.install(individuals)
        try:
            return what(shell.model, prepared, len(individuals))
        finally:
            shell.release()

    def _stack_choice(self, prepared: Any, layout: Layout) -> ModelBatchSize:
        key = id(prepared), *_dtypes(layout)
        if key not in self._choices:
            if not _finite(self._model.parameters()):
                return ModelBatchSize()  # NaN proves nothing: whoever comes next is measured
            self._choices[key] = prepared, self._measured_stack(prepared, layout)
        return self._choices[key][1]

    def _applied_choice(self, prepared: Any, individuals: Sequence[Adapted]) -> ModelBatchSize:
        key = id(prepared), "factors", *_dtypes(individuals[0].base.layout)
        if key not in self._choices:
            factors = (f for one in individuals for f in one.factors.values())
            if not _finite(t for f in factors for t in (f.a, f.b)):
                return ModelBatchSize()
            self._choices[key] = prepared, self._measured_factors(prepared, individuals)
        return self._choices[key][1]

    def _measured_stack(self, prepared: Any, layout: Layout) -> ModelBatchSize:
        size = sum(s.elements * s.dtype.itemsize for s in layout)
        counts = [c for c in self._counts(prepared) if c * size <= _STACK_BYTES]
        if not counts:
            return ModelBatchSize()
        places = self._installer.places(layout)
        installed = {name: getattr(module, a) for module, a, name, _ in places}
        stack = allocate_stack(layout, counts[-1], self._device)
        for name, tensor in installed.items():
            for i in range(len(stack)):
                # Everybody another model, so that whoever is mixed up with somebody is found out.
                stack.tensors[name][i] = tensor * (1.0 + i / 64)

        evidence = self._passes.evidence

        def alone(i: int) -> Tensor:
            self._installer.install(stack[i])
            return evidence(self._passes.plain, prepared, 1)[0]

        try:
            return self._measured(alone, lambda n: self._run(stack[:n], prepared, evidence), counts)
        finally:
            self._installer.install(Weights(layout, installed))

    def _measured_factors(self, prepared: Any, individuals: Sequence[Adapted]) -> ModelBatchSize:
        counts = self._counts(prepared)
        if not counts:
            return ModelBatchSize()
        evidence = self._passes.evidence
        others = [_other(individuals[i % len(individuals)], i) for i in range(counts[-1])]

        def alone(i: int) -> Tensor:
            return self._run(others[i : i + 1], prepared, evidence)[0]

        return self._measured(alone, lambda n: self._run(others[:n], prepared, evidence), counts)

    def _measured(
        self, alone: Callable[[int], Tensor], group: Callable[[int], Tensor], counts: Sequence[int]
    ) -> ModelBatchSize:
        # The time that a single thread took does not depend on what else the machine does.
        clock = (
            thread_time if self._device == "cpu" and torch.get_num_threads() == 1 else perf_counter
        )
        try:
            return measure_size(alone, group, counts, clock)
        # The model is anyone's code, and running several individuals through it may raise anything.
        except Exception as error:
            self.fallbacks.append(
                "model batches are disabled after an error in measuring their size "
                f"({type(error).__name__}: {error})"
            )
            return ModelBatchSize()

    def _counts(self, prepared: Any) -> list[int]:
        """Those that keep to the budgets of tokens, logits and masks."""
        batches = self._passes.batches(prepared)
        if not batches or (self._device == "cpu" and not self._is_even(batches)):
            return []
        tokens = max(b.ids.numel() for b in batches)
        logits = self._vocabulary * max(
            b.ids.numel() if b.keep is None else len(b.ids) * len(b.keep) for b in batches
        )
        mask = max(b.ids.numel() * b.ids.shape[1] * (b.branching is not None) for b in batches)
        most = min(
            self._passes.batch_tokens() // tokens,
            MAX_LOGITS // logits,
            MAX_TREE**2 // max(1, mask),
        )
        return [count for count in COUNTS if count <= most]

    def _is_even(self, batches: Sequence[ScoredBatch]) -> bool:
        """Whether nothing is left over at the end of one individual's activations, nor of a thread's part."""
        size = _AT_A_TIME * torch.get_num_threads()
        return all(b.ids.numel() * width % size == 0 for b in batches for width in self._widths)


def _width(module: Any) -> int:
    """How many numbers a layer of matrices makes of a token; 0 for any other module."""
    if isinstance(module, nn.Linear):
        return module.out_features
    return int(module.nf) if isinstance(module, Conv1D) else 0


def _finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _other(individual: Adapted, number: int) -> Adapted:
    factors = {n: Factors(f.b * (1.0 + number / 64), f.a) for n, f in individual.factors.items()}
    return Adapted(individual.base, factors)


def _dtypes(layout: Layout) -> tuple[torch.dtype, ...]:
    return tuple(sorted({spec.dtype for spec in layout}, key=str))


def _tried(work: Callable[[], list[Output]]) -> list[Output] | EngineError:
    try:
        return work()
    except EngineError as error:
        return error
