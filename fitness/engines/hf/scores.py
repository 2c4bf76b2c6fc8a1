"""What a causal language model gives scored tokens: logits, log-probabilities, and outputs by request."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitness.engines.base import NonFiniteOutputError
from fitness.engines.hf.generation import NON_FINITE
from fitness.engines.hf.model_batch.runner import TokenScores
from fitness.engines.hf.rows.batches import ScoredBatch
from fitness.requests import LogLikelihood, LogLikelihoodOutput, Output, Request, RollingOutput

# float32 copies of logits are made for so many elements at a time (256 MiB).
_SOFTMAX_ELEMENTS = 2**26


def read(
    model: Any, batches: Iterable[ScoredBatch], individuals: int, *, keeps_logits: bool
) -> Iterator[tuple[Tensor, ScoredBatch]]:
    """(logits, batch) of each batch, for a pass of ``individuals`` through ``model``.

    ``keeps_logits``: the model takes the positions whose logits are wanted.
    """
    for batch in batches:
        wide = batch if individuals == 1 else batch.repeated(individuals)
        yield logits_of(model, wide, keeps_logits=keeps_logits), wide


def logits_of(model: Any, batch: ScoredBatch, *, keeps_logits: bool) -> Tensor:
    """What follows each place of the batch, shape (places, vocabulary): the one call of the model."""
    inputs: dict[str, Any] = {**batch.inputs(), "use_cache": False}
    if batch.keep is not None and keeps_logits:
        logits = model(**inputs, logits_to_keep=batch.keep).logits
    else:
        logits = model(**inputs).logits
        if batch.keep is not None:
            logits = logits[:, batch.keep]
    found: Tensor = logits.flatten(0, 1)
    return found if batch.pick is None else found[batch.pick]


def scores_of(logits: Iterable[tuple[Tensor, ScoredBatch]], individuals: int) -> TokenScores:
    """Of all scored tokens in batch order."""
    parts = [token_scores(found, batch) for found, batch in logits]
    logprobs = torch.cat([p.view(individuals, -1) for p, _ in parts], dim=1).cpu().numpy()
    misses = torch.cat([m.view(individuals, -1) for _, m in parts], dim=1).cpu().numpy()
    return logprobs.astype(np.float64), misses.astype(np.int64)


def fingerprint_of(logits: Iterable[tuple[Tensor, ScoredBatch]], individuals: int) -> Tensor:
    """See `fitness.engines.hf.model_batch.runner.Passes.evidence`."""
    parts = []
    for found, batch in logits:
        bits = found.contiguous().view(torch.int16).sum(dim=-1, dtype=torch.int32)
        parts += [bits, token_scores(found, batch)[0]]
    return torch.cat([part.view(individuals, -1).double() for part in parts], dim=1).cpu()


def outputs_of(
    requests: Sequence[Request],
    row_requests: NDArray[np.int64],
    starts: NDArray[np.int64],
    scores: TokenScores,
) -> dict[int, Output]:
    """One individual's outputs, by request, of its ``scores``, each of shape (scored,).

    ``starts`` are the rows' first places among the scored tokens, and ``row_requests`` the rows' requests.

    Raises:
        NonFiniteOutputError: a log-probability is NaN or infinite.
    """
    logprobs, misses = scores
    if not np.isfinite(logprobs).all():
        raise NonFiniteOutputError(NON_FINITE)
    # Rows, then requests (a rolling one has a row a window); float64, in one fixed order.
    sums = np.bincount(row_requests, np.add.reduceat(logprobs, starts))
    missed = np.bincount(row_requests, np.add.reduceat(misses, starts))
    lengths = np.diff(starts, append=len(logprobs))
    tokens = np.bincount(row_requests, lengths).astype(np.int64)
    outputs: dict[int, Output] = {}
    greedy = (missed == 0).tolist()
    for i, (logprob, count) in enumerate(zip(sums.tolist(), tokens.tolist(), strict=True)):
        if not count:
            continue  # a request of another kind
        if isinstance(requests[i], LogLikelihood):
            outputs[i] = LogLikelihoodOutput(logprob, greedy[i], count)
        else:
            outputs[i] = RollingOutput(logprob, count)
    return outputs


def token_scores(logits: Tensor, batch: ScoredBatch) -> tuple[Tensor, Tensor]:
    """(float32 log-probability, whether it is not the arg-max) of each scored token."""
    place, targets = batch.place, batch.targets
    rows = max(1, _SOFTMAX_ELEMENTS // logits.shape[-1])
    if len(logits) <= rows:
        return _scores_at(logits, place, targets)
    if place is None:
        place = torch.arange(len(targets), device=targets.device)
    logprobs = torch.empty(len(targets), device=targets.device)
    misses = torch.empty(len(targets), dtype=torch.bool, device=targets.device)
    for start in range(0, len(logits), rows):
        here = (place >= start) & (place < start + rows)
        chunk = logits[start : start + rows]
        logprobs[here], misses[here] = _scores_at(chunk, place[here] - start, targets[here])
    return logprobs, misses


def _scores_at(logits: Tensor, place: Tensor | None, targets: Tensor) -> tuple[Tensor, Tensor]:
    logprobs = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    said = logits.argmax(dim=-1)
    if place is None:
        return logprobs.gather(1, targets[:, None])[:, 0], said != targets
    return logprobs[place, targets], said[place] != targets
