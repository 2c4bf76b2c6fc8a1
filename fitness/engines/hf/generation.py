"""Greedy and sampled generation of one batch, through ``model.generate``."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from fitness.engines.base import NonFiniteOutputError
from fitness.engines.hf.rows.batches import PromptBatch, PromptRow
from fitness.engines.hf.rows.tokens import Encoder

NON_FINITE = (
    "the model's outputs are not finite (NaN or infinite logits): its weights hold NaN or values "
    "far too large. Nothing was scored."
)


class _Finite(LogitsProcessor):
    """Refuses to choose a token from logits that are NaN, or +inf, or all −inf."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not bool(torch.isfinite(scores.amax(dim=-1)).all()):
            raise NonFiniteOutputError(NON_FINITE)
        return scores


class _RowEnds(StoppingCriteria):
    """Ends each row at its own ``max_tokens`` and ``stop``; generate knows only the batch's."""

    def __init__(self, batch: PromptBatch, decode: Callable[[Sequence[int]], str]) -> None:
        self._start = batch.ids.shape[1]
        self._decode = decode
        self._limits = torch.tensor([r.max_tokens for r in batch.rows], device=batch.ids.device)
        self._stops = {i: r.stop for i, r in enumerate(batch.rows) if r.stop}
        self.lengths = [r.max_tokens for r in batch.rows]  # of what each row generates, at most

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        new = input_ids.shape[1] - self._start
        done = new >= self._limits
        for i, stops in list(self._stops.items()):
            # A stop of n bytes ends in the last n tokens; a few more keep whole characters.
            tail = max(len(s.encode()) for s in stops) + 4
            text = self._decode(input_ids[i, self._start :][-tail:].tolist())
            if any(s in text for s in stops):
                done[i] = True
                self.lengths[i] = min(self.lengths[i], new)
        return done


def generate(
    model: Any, batch: PromptBatch, encoder: Encoder, *, eos: Sequence[int], pad: int
) -> tuple[list[str], int]:
    """The text that each row of ``batch`` goes on with, and how many tokens were generated for them.

    What ends a row is counted, and nothing after it. The global generators stay as they were.

    Raises:
        NonFiniteOutputError: logits are NaN or infinite.
    """
    sampled = batch.temperature > 0
    generation_config: Any = transformers.GenerationConfig
    config = generation_config(
        max_new_tokens=max(row.max_tokens for row in batch.rows),
        do_sample=sampled,
        temperature=batch.temperature if sampled else None,
        top_k=0 if sampled else None,
        top_p=1.0 if sampled else None,
        eos_token_id=list(eos) or None,
        pad_token_id=pad,
        use_cache=True,
    )
    devices = [] if batch.ids.device.type == "cpu" else [batch.ids.device]
    ends = _RowEnds(batch, encoder.tokenizer.decode)
    with torch.random.fork_rng(devices, enabled=sampled):
        if sampled:
            torch.manual_seed(batch.seed)
        written = model.generate(
            batch.ids,
            attention_mask=batch.mask,
            generation_config=config,
            logits_processor=[_Finite()],
            stopping_criteria=[ends],
        )
    new = written[:, batch.ids.shape[1] :].tolist()
    rows = [_until_end(ids[:n], eos) for ids, n in zip(new, ends.lengths, strict=True)]
    texts = [_text(row, ids, encoder, eos) for row, ids in zip(batch.rows, rows, strict=True)]
    return texts, sum(map(len, rows))


def _until_end(ids: list[int], eos: Sequence[int]) -> list[int]:
    """``ids`` up to the first EOS, and with it."""
    return ids[: next((i + 1 for i, token in enumerate(ids) if token in eos), len(ids))]


def _text(row: PromptRow, ids: list[int], encoder: Encoder, eos: Sequence[int]) -> str:
    ended = bool(ids) and ids[-1] in eos
    text = encoder.continuation_text(row.ids, ids[:-1] if ended else ids)
    return text[: min([text.find(s) for s in row.stop if s in text], default=len(text))]
