"""Low-rank changes of a base: LoRA adapters as factors, their exact sums, and truncation by SVD.

A change of a matrix is ΔW = B·A, B of shape (out, r), A of shape (r, in). Sums of such changes are made
by concatenation, which is exact; averaging the factors one by one is not: Σw·B · Σw·A ≠ Σw·B·A.

All products are float64 and rounded once to float32. The last bits of QR, SVD and large products depend
on the number of BLAS threads all the same, so a run builds and rebuilds with its own number of threads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from operators.recipe import Founder
from operators.tensors.weights import Weights


@dataclass(frozen=True, slots=True)
class Factors:
    """ΔW = ``b`` @ ``a``: b of shape (out, rank), a of shape (rank, in). Rank 0 is no change."""

    b: Tensor
    a: Tensor

    def __post_init__(self) -> None:
        if self.b.ndim != 2 or self.a.ndim != 2 or self.b.shape[1] != self.a.shape[0]:
            raise ValueError(
                f"factors of shapes {tuple(self.b.shape)} and {tuple(self.a.shape)} have no product"
            )

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.b.shape[0]), int(self.a.shape[1])

    def dense(self) -> Tensor:
        """ΔW in float32, shape (out, in)."""
        return (self.b.double() @ self.a.double()).float()


@dataclass(frozen=True, slots=True)
class Adapter:
    """A founder that is a LoRA adapter: ``base`` with ``factors`` added, by name of the base's tensor.

    The adapter's scaling is already in B.
    """

    base: Founder
    factors: Mapping[str, Factors]


@dataclass(frozen=True, slots=True)
class Adapted:
    """An individual as ``base`` and changes of it that are not added up: ``factors`` by name of tensor, in
    that tensor's dtype and contiguous.
    """

    base: Weights
    factors: Mapping[str, Factors]


def no_change(shape: Sequence[int]) -> Factors:
    """The factors of rank 0 for a tensor of ``shape``; one that is no matrix counts as a column."""
    out, inner = shape if len(shape) == 2 else (prod(shape), 1)
    return Factors(torch.zeros(out, 0), torch.zeros(0, inner))


def weighted_concat(parts: Sequence[Factors], weights: Sequence[float]) -> Factors:
    """Σ wᵢ·Bᵢ·Aᵢ, exactly, as factors of rank Σ rᵢ. ``parts`` must have one shape and be one or more."""
    kept = [(p, w) for p, w in zip(parts, weights, strict=True) if p.rank and w != 0.0]
    if not kept:
        return no_change(parts[0].shape)
    return Factors(
        torch.cat([p.b.double() * w for p, w in kept], dim=1),
        torch.cat([p.a.double() for p, _ in kept], dim=0),
    )


def truncate(factors: Factors, rank: int) -> tuple[Factors, float]:
    """The nearest change of rank ``rank`` or less, and the share of ‖ΔW‖² that it leaves out.

    QR of both factors and an SVD of the small core: the matrix itself is never formed. The singular
    values are shared evenly between both factors. ``rank`` 0 keeps all: no more than the matrix can
    have, so that sums of sums do not grow for ever. Float64 inside and out.

    Source: Eckart and Young 1936.
    """
    limit = min(factors.shape) if rank <= 0 else rank
    if factors.rank == 0 or factors.rank <= limit:
        return factors, 0.0
    q_b, r_b = torch.linalg.qr(factors.b.double())
    q_a, r_a = torch.linalg.qr(factors.a.double().T)
    core, lost = factorize(r_b @ r_a.T, limit)
    return Factors(q_b @ core.b, core.a @ q_a.T), lost


def factorize(matrix: Tensor, rank: int = 0) -> tuple[Factors, float]:
    """The nearest factors of rank ``rank`` or less to ``matrix``, and the share of its energy left out.

    By SVD in float64, the singular values shared evenly between both factors; those that are 0 to
    machine precision are left out, so a matrix of zeros has rank 0. ``rank`` 0 keeps all others.
    """
    u, sigma, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    noise = float(sigma.max()) * max(matrix.shape) * torch.finfo(torch.float64).eps
    found = int((sigma > noise).sum())
    limit = found if rank <= 0 else min(rank, found)
    root = sigma[:limit].sqrt()
    kept = Factors(u[:, :limit] * root, root[:, None] * vh[:limit])
    energy = float(sigma.square().sum())
    tail = float(sigma[limit:].square().sum())
    return kept, tail / energy if energy > 0.0 else 0.0
