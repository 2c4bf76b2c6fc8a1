"""Means with errors, paired bootstrap, votes and medoids."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitness.statistics import majority_vote, mean_and_error, medoid, paired_bootstrap

values = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30)


@given(values)
def test_mean_and_error_are_numpys(xs: list[float]) -> None:
    mean, error = mean_and_error(xs)
    assert mean == pytest.approx(np.mean(xs), abs=1e-9)
    assert error == pytest.approx(np.std(xs, ddof=1) / np.sqrt(len(xs)), abs=1e-9)


@given(values, st.floats(0.1, 10))
def test_equal_weights_change_nothing(xs: list[float], weight: float) -> None:
    assert mean_and_error(xs, [weight] * len(xs)) == pytest.approx(mean_and_error(xs), abs=1e-9)


def test_weights_give_the_ratio_of_sums() -> None:
    bits, size = [8.0, 30.0], [4.0, 10.0]
    per_byte = [b / s for b, s in zip(bits, size, strict=True)]
    assert mean_and_error(per_byte, size)[0] == pytest.approx(38 / 14)


def test_one_value_has_no_error() -> None:
    assert mean_and_error([0.25]) == (0.25, 0.0)


@pytest.mark.parametrize("xs", [[], [1.0, float("nan")], [float("inf")]])
def test_what_has_no_mean_is_refused(xs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"no values|finite"):
        mean_and_error(xs)


def test_weights_must_fit() -> None:
    with pytest.raises(ValueError, match="2 positive weights, got 1"):
        mean_and_error([1.0, 2.0], [1.0])


def test_bootstrap_finds_a_real_difference_and_repeats() -> None:
    rng = np.random.default_rng(0)
    a = (rng.random(400) < 0.7).astype(float).tolist()
    b = [x * float(r < 0.8) for x, r in zip(a, rng.random(400), strict=True)]
    difference, low, high = paired_bootstrap(a, b, resamples=2000, seed=1)
    assert difference == pytest.approx(np.mean(a) - np.mean(b))
    assert 0 < low < difference < high
    assert paired_bootstrap(a, b, resamples=2000, seed=1) == (difference, low, high)
    assert paired_bootstrap(b, a, resamples=2000, seed=1) == pytest.approx(
        (-difference, -high, -low)
    )
    half_width = 1.96 * np.std(np.subtract(a, b), ddof=1) / 20
    assert high - low == pytest.approx(2 * half_width, rel=0.15)


def test_bootstrap_by_strata_has_the_error_of_a_stratified_mean() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(0.0, 0.1, 200), rng.normal(5.0, 0.2, 100)
    difference, low, high = paired_bootstrap(
        [*one, *other],
        [0.0] * 300,
        weights=[1 / 200] * 200 + [1 / 100] * 100,
        strata=[0] * 200 + [1] * 100,
        seed=0,
    )
    error = np.sqrt(one.var(ddof=1) / 200 + other.var(ddof=1) / 100) / 2
    assert difference == pytest.approx((one.mean() + other.mean()) / 2)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_an_end_of_the_interval_that_is_zero_is_zero() -> None:
    """Else rounding alone (1.7e-18 here) would call a difference certain."""
    a, b = [1.0] * 22 + [0.0] * 178, [0.0] * 189 + [1.0] * 11
    _, low, high = paired_bootstrap(a, b, weights=[1 / 200] * 200, resamples=400, seed=0)
    assert low == 0.0 < high


def test_bootstrap_of_equal_scores_is_zero_and_of_unequal_lengths_an_error() -> None:
    assert paired_bootstrap([1.0, 0.0], [1.0, 0.0], seed=0) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="same examples: got 2 and 1"):
        paired_bootstrap([1.0, 0.0], [1.0], seed=0)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([["a"], ["b"], ["b"]], ["b"]),
        ([["a"], ["b"]], ["a"]),
        ([["c"], ["b"], ["a"], ["a"], ["b"]], ["b"]),
        ([[1, 2], [0, 2], [0, 3]], [0, 2]),
    ],
)
def test_the_most_frequent_answer_wins_and_ties_go_to_the_first_member(
    members: list[list[str]], expected: list[str]
) -> None:
    assert majority_vote(members) == expected


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=7))
def test_no_answer_is_more_frequent_than_the_winner(members: list[list[int]]) -> None:
    for i, winner in enumerate(majority_vote(members)):
        counts = Counter(m[i] for m in members)
        assert counts[winner] == max(counts.values())


@pytest.mark.parametrize("members", [[], [["a"], ["a", "b"]]])
def test_a_vote_needs_members_and_equal_lengths(members: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="vote needs"):
        majority_vote(members)


def test_the_medoid_is_most_like_the_others() -> None:
    texts = ["something else entirely", "the cat sat", "the cat sat.", "a cat sat."]
    assert medoid(texts) == "the cat sat."
    assert medoid(["b", "a"]) == "b"
    assert medoid(["only"]) == "only"
    with pytest.raises(ValueError, match="no texts"):
        medoid([])
