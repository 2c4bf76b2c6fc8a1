"""Means with errors, paired comparison, and the two ways an ensemble agrees on an answer."""

from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from math import fsum, isfinite, sqrt
from typing import TypeVar

import numpy as np

AnswerT = TypeVar("AnswerT", bound=str | int)

_CHUNK_ELEMENTS = 2_000_000


def mean_and_error(
    values: Sequence[float], weights: Sequence[float] | None = None
) -> tuple[float, float]:
    """(mean, standard error of the mean) of ``values``; the error uses n − 1, and is 0.0 for n = 1.

    With ``weights`` it is the weighted mean Σwv/Σw, and the error of that ratio,
    √(n/(n−1)·Σw²(v−mean)²)/Σw, which is the plain one when all weights are equal.

    Raises:
        ValueError: no values, a value that is not finite, or weights that do not fit.
    """
    n = len(values)
    if not n:
        raise ValueError("no values to average")
    if not all(isfinite(v) for v in values):
        raise ValueError("values must be finite; a failed evaluation has no mean")
    w = [1.0] * n if weights is None else list(weights)
    if len(w) != n or min(w) <= 0:
        raise ValueError(f"{n} values need {n} positive weights, got {len(w)}")
    total = fsum(w)
    mean = fsum(a * b for a, b in zip(w, values, strict=True)) / total
    if n == 1:
        return mean, 0.0
    squares = fsum((a * (b - mean)) ** 2 for a, b in zip(w, values, strict=True))
    return mean, sqrt(n / (n - 1) * squares) / total


def paired_bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    *,
    weights: Sequence[float] | None = None,
    strata: Sequence[int] | None = None,
    resamples: int = 10_000,
    seed: int,
) -> tuple[float, float, float]:
    """(mean(a) − mean(b), low, high): a 95 % interval by resampling examples, the same for both.

    ``a`` and ``b`` are per-example scores of two models on the same examples in the same order.
    ``weights`` as in `mean_and_error`. The interval is of percentiles 2.5 and 97.5. ``strata`` numbers
    the sample that each example is of: there are as many of each in every resample as there are here,
    so that the difference between samples adds nothing to the interval.

    Raises:
        ValueError: lengths differ, no values, values not finite, or ``resamples`` below 1.
    """
    if len(a) != len(b):
        raise ValueError(f"paired scores need the same examples: got {len(a)} and {len(b)}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    difference = mean_and_error(a, weights)[0] - mean_and_error(b, weights)[0]
    n = len(a)
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    d = (np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)) * w
    generator = np.random.default_rng(seed)
    total, weight = np.zeros(resamples), np.zeros(resamples)
    stratum = np.zeros(n, np.int64) if strata is None else np.asarray(strata)
    for number in np.unique(stratum):
        mine = np.flatnonzero(stratum == number)
        size = len(mine)
        rows = max(
            1, _CHUNK_ELEMENTS // size
        )  # bounds memory; the draws are the same for any chunk
        for start in range(0, resamples, rows):
            stop = min(start + rows, resamples)
            drawn = mine[generator.integers(size, size=(stop - start, size))]
            total[start:stop] += d[drawn].sum(axis=1)
            weight[start:stop] += w[drawn].sum(axis=1)
    low, high = np.percentile(total / weight, (2.5, 97.5))
    # Sums of fractions miss 0 by a hair, and on which side of it an end lies is what people look at.
    return difference, round(float(low), 12), round(float(high), 12)


def majority_vote(answers_by_member: Sequence[Sequence[AnswerT]]) -> list[AnswerT]:
    """The most frequent answer to each example; of tied answers, that of the member listed first.

    Args:
        answers_by_member: shape (members, examples).

    Raises:
        ValueError: no members, or members that answered different numbers of examples.
    """
    return [_most_frequent(answers) for answers in by_example(answers_by_member)]


def by_example(answers_by_member: Sequence[Sequence[AnswerT]]) -> list[tuple[AnswerT, ...]]:
    """Transpose (members, examples) to (examples, members), with a check of the lengths."""
    lengths = {len(answers) for answers in answers_by_member}
    if len(lengths) != 1:
        raise ValueError(
            "a vote needs at least one member, and of each an answer to every example; "
            f"got answers to {sorted(lengths)} examples"
        )
    return list(zip(*answers_by_member, strict=True))


def _most_frequent(answers: Sequence[AnswerT]) -> AnswerT:
    # Counter keeps the order of first sight, and max takes the first of equals.
    counts = Counter(answers)
    return max(counts, key=counts.__getitem__)


def medoid(texts: Sequence[str]) -> str:
    """The text most like the others: greatest mean difflib ratio to them; the first of equals.

    Raises:
        ValueError: no texts.
    """
    if not texts:
        raise ValueError("no texts to choose from")
    n = len(texts)
    similarity = [0.0] * n
    for i in range(n):
        for j in range(i):
            # difflib's ratio depends on the order of its arguments: take both.
            ratio = _ratio(texts[i], texts[j]) + _ratio(texts[j], texts[i])
            similarity[i] += ratio
            similarity[j] += ratio
    return texts[max(range(n), key=lambda i: (similarity[i], -i))]


def _ratio(a: str, b: str) -> float:
    return SequenceMatcher(None, a, b, autojunk=False).ratio()
