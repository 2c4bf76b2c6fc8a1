"""Order statistics of large tensors, by partition instead of a full sort."""

from collections.abc import Sequence

import torch
from torch import Tensor


def order_statistics(values: Tensor, places: Sequence[int]) -> tuple[float, ...]:
    """What stands at each of ``places`` (0 is the smallest) if ``values``, any shape, were sorted."""
    flat = values.detach().reshape(-1).cpu().numpy().copy()
    # In one call, numpy partitions the pieces between the places and not the whole array again.
    flat.partition(sorted(set(places)))
    return tuple(float(flat[p]) for p in places)


def largest(values: Tensor, count: int) -> Tensor:
    """A mask, shape as ``values``, of its ``count`` largest elements; earlier ones win among equals."""
    size = values.numel()
    if count <= 0 or count >= size:
        return torch.full(values.shape, count > 0, device=values.device)
    flat = values.reshape(-1)
    (threshold,) = order_statistics(flat, [size - count])
    mask = flat > threshold
    tied = (flat == threshold).nonzero().reshape(-1)
    mask[tied[: count - int(mask.sum())]] = True
    return mask.view(values.shape)
