"""Protocols of engines: prepare the requests of a task once, then install and ask one model after another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fitness.requests import Output, Request
from operators.build.paths import LayerPath
from operators.errors import EvoError
from operators.tensors.low_rank import Adapted
from operators.tensors.weights import Stack, Weights


class EngineError(EvoError):
    """An engine can't do what it was asked to; the message says what to change."""


class RequestError(EngineError):
    """A request cannot be answered by this engine or model; the message names its index."""


class InstallError(EngineError):
    """Weights do not fit the model; the message names the parameter."""


class NonFiniteOutputError(EngineError):
    """The installed weights give NaN or infinite outputs: the candidate failed, its score is not 0."""


@dataclass(frozen=True, slots=True)
class PreparedRequests:
    """``count`` requests as one engine reads them. No other engine takes them."""

    count: int


@runtime_checkable
class Engine(Protocol):
    """Answers requests with whatever weights were installed last.

    One engine serves one thread at a time. Equal weights and equal prepared requests give equal
    answers, bit by bit, on one kind of device with one number of threads. What else an engine can do is
    a protocol of its own below, and a field of its `fitness.engines.EngineKind`.
    """

    @property
    def tokens(self) -> int | None:
        """Tokens that models here have read and generated so far, without padding, for complete answers.

        None where models read no tokens.
        """
        ...

    def prepare(self, requests: Sequence[Request]) -> PreparedRequests:
        """Tokenise and batch ``requests``: once for each task and host, not for each individual.

        Batches depend on the requests alone.

        Raises:
            RequestError: a request is of a kind this engine does not answer, or is too long.
        """
        ...

    def install(self, weights: Weights) -> None:
        """Run these weights from now on. The engine may keep views of the tensors: nothing need be copied.

        Whoever changes the tensors installs them again before the next answer.

        Raises:
            InstallError: a parameter is in no tensor, or has another shape.
        """
        ...

    def answer(self, prepared: PreparedRequests) -> list[Output]:
        """Answers in the order of the requests given to `prepare`.

        Raises:
            RequestError: another engine prepared the requests.
            NonFiniteOutputError: the weights give NaN or infinite outputs.
        """
        ...


@runtime_checkable
class RunsPaths(Engine, Protocol):
    """An engine that runs data-flow paths."""

    def install_path(self, path: LayerPath) -> None:
        """Run the steps of ``path`` until the next install; nothing is copied.

        Raises:
            EngineError: this model's architecture runs no paths.
            InstallError: the path's tensors do not fit.
        """
        ...


@runtime_checkable
class MeasuresInfluence(Engine, Protocol):
    """An engine that knows the layers of its model."""

    def influence(self, prepared: PreparedRequests) -> list[float]:
        """How much each layer of the installed model changes the residual stream, on these requests.

        Raises:
            EngineError: this model's architecture has no layers to tell apart.
        """
        ...


@runtime_checkable
class AppliesAdapters(Engine, Protocol):
    """An engine that runs a base with low-rank factors beside its matrices."""

    def install_adapted(self, individual: Adapted) -> None:
        """Run the individual's base with its factors beside it until the next install; nothing is copied.

        To rounding, that is the model with the factors added to its weights.

        Raises:
            EngineError: a factor is of a tensor that they can't be applied to.
            InstallError: the base's tensors do not fit.
        """
        ...


@runtime_checkable
class RunsModelBatches(Engine, Protocol):
    """An engine that runs several individuals in one forward pass."""

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Why individuals run one by one where model batches failed: a line each, oldest first."""
        ...

    def model_batch_size(self, prepared: Sequence[PreparedRequests]) -> int:
        """How many individuals one forward pass of these requests should take.

        1 where more are not faster, give other bits than one by one, or take too much memory.
        Measured at the first call for these requests, then remembered.
        """
        ...

    def answer_many(
        self, population: Stack | Sequence[Adapted], prepared: PreparedRequests
    ) -> list[list[Output] | EngineError]:
        """What `install` (or `install_adapted`) and `answer` give for each individual, to the last bit.

        An individual's own failure stands in its place. What is installed afterwards is undefined. Any
        number of adapted individuals may be given: they are divided into passes here.
        """
        ...
