"""Block influence: how much each layer of a model changes the residual stream.

BI_l = 1 − E cos(h_l, h_{l+1}), the mean over all tokens read, h_l being what layer l reads (ShortGPT,
arXiv 2403.03853, section 3).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def block_influence(
    model: Any, layers: nn.ModuleList, batches: Iterable[tuple[Mapping[str, Tensor], Tensor]]
) -> list[float]:
    """BI of each of ``layers``, in [0, 2], over ``batches`` of (what the model takes, weights of its tokens).

    Weights are whole numbers of shape (rows, length), how often a token counts: 0 is padding.
    """
    sums = [0.0] * len(layers)
    count = 0
    reading: list[Tensor] = []  # the weights of the batch that runs

    def watch(number: int) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            cosine = torch.cosine_similarity(before.float(), after.float(), dim=-1)
            weights = reading[-1]
            real = weights > 0
            sums[number] += float((cosine[real].double() * weights[real]).sum())

        return hook

    hooks = [
        layer.register_forward_hook(watch(number), with_kwargs=True)
        for number, layer in enumerate(layers)
    ]
    try:
        with torch.inference_mode():
            for inputs, weights in batches:
                reading[:] = [weights]
                model(**inputs, use_cache=False)
                count += int(weights.sum())
    finally:
        for hook in hooks:
            hook.remove()
    return [1.0 - total / max(1, count) for total in sums]


def padded(ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """What a model takes to read rows padded on either side: positions count from a row's first token."""
    seen = mask.long()
    positions = (seen.cumsum(-1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": seen, "position_ids": positions}
