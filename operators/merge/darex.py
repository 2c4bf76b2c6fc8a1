"""DAREx-q: what survives random dropping is divided by a q between the share kept and 1.

DARE divides by the share kept, which keeps the mean and multiplies the variance: with most entries
dropped the variance is what hurts, and a larger q trades one for the other.
"""

import math

import torch
from torch import Tensor

from operators.merge.table import Parameter


def global_q(keep: float, exponent: float) -> float:
    """One q for all: keep^exponent. 1 is DARE's q = keep, 0 is q = 1 or no rescaling."""
    return float(keep**exponent)


def variance_proxy(p: float) -> float:
    """Φ(p) = (1 − 2p) / ln((1 − p)/p), the Bernoulli variance proxy of Kearns and Saul; Φ(½) = ½."""
    if abs(p - 0.5) < 1e-9:
        return 0.5
    return (1.0 - 2.0 * p) / math.log((1.0 - p) / p)


def row_q(contributions: Tensor, *, drop: float, eta: float = 0.45, gamma: float = 0.95) -> Tensor:
    """The q in [1 − drop, 1] of each output, float64, shape (outputs,).

    ``contributions`` c, shape (outputs, inputs), are an output's terms δ·x. With probability ``gamma``
    the output's error is bounded by a function of q that ``eta`` balances; q makes

        | η(1 − (1 − p)/q)·Σc + η²Φ(p)·Σc²/(4q²) + ln(2/(1 − γ)) |

    smallest. It is a parabola in 1/q, so only its roots, its vertex and the ends can be best; the
    public code scans q in steps of 0.001 up to 0.998. The largest q wins among equals.

    Raises:
        ValueError: ``drop`` or ``gamma`` outside (0, 1).
    Source: Deng et al. 2024, arXiv 2410.09344, section 4 and appendix.
    """
    if not 0.0 < drop < 1.0 or not 0.0 < gamma < 1.0:
        raise ValueError(f"row_q: drop and gamma must be in (0, 1), got {drop} and {gamma}")
    total = contributions.sum(dim=1, dtype=torch.float64)
    square = contributions.double().square().sum(dim=1)
    keep = 1.0 - drop
    a = eta**2 * variance_proxy(drop) * square / 4.0
    b = -eta * keep * total
    c = eta * total + math.log(2.0 / (1.0 - gamma))
    root = (b * b - 4.0 * a * c).clamp_(min=0.0).sqrt_()
    halves = torch.stack([-b - root, -b, -b + root])
    # In order of 1/q: 1 comes first, so that the first of equals is the largest q.
    ends = torch.ones((2, len(total)), dtype=torch.float64, device=total.device)
    ends[1] /= keep
    inverse = torch.where(a > 0.0, halves / (2.0 * a), ends[:1]).clamp_(1.0, 1.0 / keep)
    inverse = torch.cat([inverse, ends]).sort(dim=0).values
    bound = ((a * inverse + b) * inverse + c).abs()
    return 1.0 / inverse.gather(0, bound.argmin(dim=0, keepdim=True))[0]


RESCALE = Parameter("rescale", "l1", choices=("l1", "inverse_density", "darex", "none"))
Q_EXPONENT = Parameter("q_exponent", 0.5, valid=(0.0, 1.0))
