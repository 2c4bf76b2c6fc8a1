"""Merges of LoRA adapters in ΔW = B·A: ``lora_concat``, ``evo_lora`` and ``evo_lora_published``.

Whole fine-tunes may be merged as adapters too, except in the published form, whose result depends on
the factors themselves and not on their product.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from operators.merge.linear import WEIGHT, required, weighted_sum
from operators.merge.order import largest
from operators.merge.table import MergeMethod, Parameter, Values
from operators.tensors.low_rank import Factors, factorize, truncate, weighted_concat


def top_share(matrix: Tensor, alpha: float) -> Tensor:
    """S_α: ``matrix`` without all but its max(1, round(α·elements)) largest magnitudes; 0 at α = 0.

    Of equal magnitudes at the threshold the earlier are kept; the public code keeps them all.
    """
    count = max(1, round(alpha * matrix.numel())) if alpha > 0.0 else 0
    return matrix * largest(matrix.abs(), count)


def sparse_sum(parts: Sequence[Factors], alpha: Sequence[float], beta: Sequence[float]) -> Factors:
    """Σ βᵢ·Bᵢ·S_{αᵢ}(Aᵢ), exactly, as factors of rank Σ rᵢ."""
    thin = [Factors(p.b, top_share(p.a, a)) for p, a in zip(parts, alpha, strict=True)]
    return weighted_concat(thin, beta)


def separate_sums(
    parts: Sequence[Factors], alpha: Sequence[float], beta: Sequence[float]
) -> Factors:
    """(Σ βᵢBᵢ)·(Σ βᵢS_{αᵢ}(Aᵢ)): the published form, with its cross terms Bᵢ·Aⱼ and squared βᵢ.

    Adapters that leave a tensor alone (rank 0) add nothing.

    Raises:
        ValueError: the others have different ranks, so their factors have no sum.
    """
    found = [(p, a, w) for p, a, w in zip(parts, alpha, beta, strict=True) if p.rank]
    if not found:
        return parts[0]
    ranks = sorted({p.rank for p, _, _ in found})
    if len(ranks) > 1:
        raise ValueError(
            f"evo_lora_published adds up the factors of adapters one by one, so all must have one "
            f"rank; these have {', '.join(map(str, ranks))}. Use evo_lora, which takes any."
        )
    b, a = torch.zeros_like(found[0][0].b).double(), torch.zeros_like(found[0][0].a).double()
    for part, share, weight in found:
        b += part.b.double() * weight
        a += top_share(part.a, share).double() * weight
    return Factors(b, a)


def _concat_factors(parts: Sequence[Factors], values: Values, seed: int, name: str) -> Factors:
    return truncate(weighted_concat(parts, values.numbers("weight")), _rank(values))[0]


def _concat(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    """θ_b + Σ wᵢτᵢ, a matrix's sum cut to ``rank`` by SVD; other tensors have no rank to cut.

    Neutral: ``rank`` 0 and weights that add up to 1.
    """
    origin = required(base)
    task = weighted_sum([x - origin for x in inputs], values.numbers("weight"))
    return (_cut(task, _rank(values)) if task.ndim == 2 else task) + origin


def _cut(matrix: Tensor, rank: int) -> Tensor:
    return factorize(matrix, rank)[0].dense() if 0 < rank < min(matrix.shape) else matrix


def _evo_factors(parts: Sequence[Factors], values: Values, seed: int, name: str) -> Factors:
    sparse = sparse_sum(parts, values.numbers("alpha"), values.numbers("beta"))
    return truncate(sparse, _rank(values))[0]


def _evo(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    """Whole models count as adapters by the SVD of their task vector, B = U√Σ and A = √ΣVᵀ.

    A tensor of more than two axes counts as a matrix, all after the first joined; a vector is its
    own A, with B = 1. Neutral: ``alpha`` 1, ``rank`` 0, and ``beta`` that adds up to 1.
    """
    origin = required(base)
    rows = origin.shape[0] if origin.ndim > 1 else 1
    parts = [
        _sparse((x - origin).reshape(rows, -1), a)
        for x, a in zip(inputs, values.numbers("alpha"), strict=True)
    ]
    task = _cut(weighted_sum(parts, values.numbers("beta")), _rank(values))
    return task.view_as(origin) + origin


def _sparse(delta: Tensor, alpha: float) -> Tensor:
    if alpha >= 1.0:
        return delta
    if len(delta) == 1:
        return top_share(delta, alpha)
    found, _ = factorize(delta)
    return Factors(found.b, top_share(found.a, alpha)).dense()


def _published_factors(parts: Sequence[Factors], values: Values, seed: int, name: str) -> Factors:
    return separate_sums(parts, values.numbers("alpha"), values.numbers("beta"))


def _published(
    inputs: Sequence[Tensor], base: Tensor | None, values: Values, seed: int, name: str
) -> Tensor:
    raise ValueError(
        f"evo_lora_published needs LoRA adapters as founders, of one base and with it as 'base': "
        f"{name!r} came as whole tensors, whose factors are not known. Use evo_lora, which takes them."
    )


def _rank(values: Values) -> int:
    return int(values.number("rank"))


RANK = Parameter("rank", 0.0, valid=(0.0, 65536.0), search=(1.0, 64.0), integer=True)
ALPHA = Parameter("alpha", 1.0, valid=(0.0, 1.0), search=(0.05, 1.0), per_input=True)
BETA = Parameter("beta", 1.0, search=(-1.0, 1.5), per_input=True)

LORA_CONCAT = MergeMethod(
    "lora_concat",
    _concat,
    (WEIGHT, RANK),
    base="required",
    inputs=(1, None),
    source="PEFT's add_weighted_adapter, 'cat' and 'svd'; Eckart and Young 1936",
    factors=_concat_factors,
)
EVO_LORA = MergeMethod(
    "evo_lora",
    _evo,
    (ALPHA, BETA, RANK),
    base="required",
    inputs=(1, None),
    source="Evo-Merging, arXiv 2509.12951, in the exact form Σ βᵢBᵢS(Aᵢ)",
    factors=_evo_factors,
)
EVO_LORA_PUBLISHED = MergeMethod(
    "evo_lora_published",
    _published,
    (ALPHA, BETA),
    base="required",
    inputs=(1, None),
    source="Evo-Merging, arXiv 2509.12951, as its code adds up the factors",
    factors=_published_factors,
    adapters_only=True,
)
