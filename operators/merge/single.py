"""One model, alone or against its base: ``passthrough``, ``nearswap`` and ``arcee_fusion``."""

from collections.abc import Sequence

import torch
from torch import Tensor

from operators.merge.linear import required
from operators.merge.order import order_statistics
from operators.merge.table import MergeMethod, Parameter, Values

BLOCK = 1 << 20  # elements turned to float64 at once


def _passthrough(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    """scale·x. Slices of layers take their tensors through this, each from its own model."""
    return inputs[0] * values.numbers("scale")[0]


def _nearswap(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    """The base moved towards the model by ``t`` at most: elements nearer than that are swapped.

    mergekit writes it as w·x + (1−w)·base with w = t/max(|δ|, 1e-6) cut to [0, 1]. That is the same,
    save for t < 1e-6, where it moves less by at most t. A negative ``t`` counts as 0.
    """
    t = max(0.0, values.number("t"))
    return (inputs[0] - required(base)).clamp_(-t, t).add_(required(base))


def _arcee_fusion(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    """The base with the model's most important elements: importance ≥ median + 1.5·(q₃ − q₁).

    Importance is |δ| times KL(softmax x ‖ softmax base) of the vector along the last axis. A quantile q
    of n is element ⌊q·(n−1)⌋ in order of size, over the whole tensor; mergekit takes it from a random
    million of the elements where there are more, and the divergence from float32, whose rounding decides
    instead where a fine-tune is near its base.
    """
    origin = required(base)
    delta = inputs[0] - origin
    importance = delta.abs().mul_(_divergence(inputs[0], origin))
    last = importance.numel() - 1
    low, median, high = order_statistics(importance, [last * q // 4 for q in (1, 2, 3)])
    return delta.mul_(importance >= median + 1.5 * (high - low)).add_(origin)


def _divergence(x: Tensor, base: Tensor) -> Tensor:
    """KL(softmax x ‖ softmax base) along the last axis, 1e-8 added to both; float32, 1 on that axis.

    Float64 inside: between a model and its fine-tune it is no larger than float32's rounding.
    """
    width = x.shape[-1] if x.ndim else 1
    rows, origin = x.reshape(-1, width), base.reshape(-1, width)
    made = torch.empty(len(rows), 1, device=x.device)
    step = max(1, BLOCK // width)
    for at in range(0, len(rows), step):
        p, q = (t[at : at + step].double().softmax(dim=-1).add_(1e-8) for t in (rows, origin))
        made[at : at + step] = (p * (p / q).log_()).sum(dim=-1, keepdim=True)
    return made.view((*x.shape[:-1], 1) if x.ndim else ())


PASSTHROUGH = MergeMethod(
    "passthrough",
    _passthrough,
    (Parameter("scale", 1.0, search=(0.5, 1.5), per_input=True),),
    base="none",
    inputs=(1, 1),
    source="mergekit 0.1.5, passthrough",
)
NEARSWAP = MergeMethod(
    "nearswap",
    _nearswap,
    (Parameter("t", 1e-4, search=(0.0, 0.02)),),
    base="required",
    inputs=(1, 1),
    source="alchemonaut, https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
)
ARCEE_FUSION = MergeMethod(
    "arcee_fusion",
    _arcee_fusion,
    (),
    base="required",
    inputs=(1, 1),
    source="Arcee, https://arcee.ai; mergekit 0.1.5, arcee_fusion",
)
