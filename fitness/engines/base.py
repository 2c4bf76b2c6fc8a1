"""What runs a model: prepare a task's requests once, then install and ask one model after another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fitness.requests import Output, Request
from operators.build.paths import LayerPath
from operators.errors import EvoError
from operators.tensors.low_rank import Adapted
from operators.tensors.weights import Stack, Weights


class EngineError(EvoError):
    """An engine cannot do what it was asked; the message says what to change."""


class RequestError(EngineError):
    """A request cannot be answered by this engine or model; the message names its index."""


class InstallError(EngineError):
    """Weights do not cover the model; the message names the parameter."""


class NonFiniteOutputError(EngineError):
    """The installed weights give NaN or infinite outputs: the candidate failed, its score is not 0."""


@dataclass(frozen=True, slots=True)
class PreparedRequests:
    """Requests made ready by one engine, for that engine only. Opaque: ``count`` requests."""

    count: int


class Engine(Protocol):
    """Answers requests with whatever weights were installed last.

    One engine serves one thread at a time. Equal weights and equal prepared requests give equal
    answers, bit by bit, on one kind of device with one number of threads.
    """

    @property
    def tokens(self) -> int | None:
        """How many tokens went through models here so far, with every answer that was whole: those read
        and those generated, without padding. None where models read no tokens.
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
        """Make the model's parameters views of these tensors; nothing is copied.

        The tensors may be refilled in place afterwards; the next answer sees the new values.

        Raises:
            InstallError: a parameter is in no tensor, or has another shape.
        """
        ...

    def install_path(self, path: LayerPath) -> None:
        """Make the model run the steps of ``path``, until the next install; nothing is copied.

        Raises:
            EngineError: this engine, or this model's architecture, runs no paths.
            InstallError: the path's tensors do not fit.
        """
        ...

    def install_adapted(self, individual: Adapted) -> None:
        """Make the model run the individual's base with its factors beside it, until the next install;
        nothing is copied. To rounding, that is the model with the factors added to its weights.

        Raises:
            EngineError: this engine applies no factors, or not to one of these tensors.
            InstallError: the base's tensors do not fit.
        """
        ...

    def influence(self, prepared: PreparedRequests) -> list[float]:
        """How much each layer of the installed model changes the residual stream, on these requests.

        Raises:
            EngineError: this engine, or this model's architecture, has no layers to tell apart.
        """
        ...

    def answer(self, prepared: PreparedRequests) -> list[Output]:
        """Answers in the order of the requests given to `prepare`.

        Raises:
            NonFiniteOutputError: the weights give NaN or infinite outputs.
        """
        ...

    def model_batch_size(self, prepared: Sequence[PreparedRequests]) -> int:
        """How many individuals one pass of these requests should take.

        1 where more are not faster, would not give the same bits as one by one, or take too much memory.
        Measured at the first call for these requests, then remembered.
        """
        ...

    def answer_many(
        self, population: Stack | Sequence[Adapted], prepared: PreparedRequests
    ) -> list[list[Output] | EngineError]:
        """What `install` (or `install_adapted`) and `answer` give for each individual, to the last bit.

        An individual's own failure stands in its place. What is installed afterwards is left open. Of
        adapted individuals there may be any number: passes are shared out here.
        """
        ...
