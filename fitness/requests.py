"""What a model can be asked, and what it answers.

The first three are the field's own; `Call` asks any torch module anything. All are small, frozen
and hashable: a task makes them once, and every individual is asked the same ones in the same order.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogLikelihood:
    """How likely is ``continuation`` after ``context``, and is it what greedy decoding would say?

    ``context`` and ``continuation`` are tokenised together; spaces at the end of ``context`` count
    as the start of ``continuation``, as words are tokenised with the space before them.

    Attributes:
        context: may be empty: then the tokenizer's BOS (or EOS) token stands for it.
        continuation: may be empty only when ``end`` is set.
        end: the tokenizer's EOS token must follow, and is scored too.
        chat: ``context`` goes through the tokenizer's chat template as one user turn.
    """

    context: str
    continuation: str
    end: bool = False
    chat: bool = False


@dataclass(frozen=True, slots=True)
class RollingLogLikelihood:
    """How likely is ``text`` from its first token on; texts beyond the context are windowed."""

    text: str


@dataclass(frozen=True, slots=True)
class Generate:
    """What does the model write after ``prompt``?

    Attributes:
        max_tokens: at most so many new tokens, at least 1.
        stop: the text ends before the first of these strings, and before any EOS token.
        temperature: 0 is greedy; above, plain sampling from softmax(logits / temperature).
        seed: of the sampling; it leaves the global generators alone.
        chat: ``prompt`` goes through the tokenizer's chat template as one user turn.
    """

    prompt: str
    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    seed: int = 0
    chat: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """Call ``function`` ("package.module:name") with (module, data); it returns a float an example."""

    function: str
    data: str


@dataclass(frozen=True, slots=True)
class LogLikelihoodOutput:
    """Answer to `LogLikelihood`.

    Attributes:
        logprob: of all scored tokens, in nats.
        greedy: every scored token is the arg-max at its place.
        tokens: how many were scored, EOS included when ``end`` was asked for.
    """

    logprob: float
    greedy: bool
    tokens: int


@dataclass(frozen=True, slots=True)
class RollingOutput:
    """Answer to `RollingLogLikelihood`: nats, and the number of tokens of the text."""

    logprob: float
    tokens: int


@dataclass(frozen=True, slots=True)
class CallOutput:
    """Answer to `Call`: one value an example, in the function's order."""

    values: tuple[float, ...]


Request = LogLikelihood | RollingLogLikelihood | Generate | Call
Output = LogLikelihoodOutput | RollingOutput | CallOutput | str
"""What answers a request; the answer to `Generate` is the generated text."""
