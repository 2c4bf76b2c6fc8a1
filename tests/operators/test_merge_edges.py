"""Where mergekit fails, is left to chance or loses its numbers to rounding: what ours give there."""

import numpy as np
import pytest
import torch
from models import merged_tensor

from operators.merge.sparsify import keep_probabilities


def test_della_keeps_by_rank_within_each_row():
    delta = torch.tensor([[0.1, -0.3, 0.2], [9.0, 8.0, -7.0]])
    want = torch.tensor([[0.3, 0.7, 0.5], [0.7, 0.5, 0.3]])
    assert torch.allclose(keep_probabilities(delta, 0.5, 0.2), want)
    assert torch.allclose(keep_probabilities(delta[0], 0.5, 0.2), want[0])  # a vector is one row


def test_della_goes_on_where_mergekit_raises():
    rates = keep_probabilities(torch.arange(5.0), 0.1, 0.15)  # mergekit: ValueError
    assert torch.allclose(rates, torch.tensor([0.0, 0.025, 0.1, 0.175, 0.25]))
    column = keep_probabilities(torch.rand(4, 1), 0.4, 0.15)  # mergekit: 0/0
    assert torch.equal(column, torch.full((4, 1), 0.4))


def test_della_by_its_paper_keeps_the_mean_of_every_element():
    delta = torch.tensor([0.5, -1.0, 2.0, 4.0])
    params = {"density": 0.5, "epsilon": 0.3, "rescale": "inverse_density"}
    draws = [
        merged_tensor("della_linear", [delta], torch.zeros(4), seed=s, **params).numpy()
        for s in range(4000)
    ]
    error = np.std(draws, axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(np.mean(draws, axis=0) - delta.numpy()) < 4 * error)


@pytest.mark.parametrize(
    ("gamma", "density", "kept"),
    [
        (0.0, 0.5, [5, 6, 7, 8, 9]),
        (0.05, 0.5, [5, 6, 7, 8, 9]),  # ⌊0.05·10⌋ = 0 outliers; mergekit 0.1.4 kept nothing
        (0.2, 0.5, [3, 4, 5, 6, 7]),
        (0.9, 0.5, [0, 1, 2, 3, 4]),  # fewer outliers go, so that the density is kept
        (0.2, 1.0, list(range(10))),
    ],
)
def test_breadcrumbs_keep_the_middle_of_the_magnitudes(gamma, density, kept):
    delta = torch.arange(1.0, 11.0) * torch.tensor([1.0, -1.0] * 5)
    got = merged_tensor("breadcrumbs", [delta], torch.zeros(10), gamma=gamma, density=density)
    assert got.nonzero().reshape(-1).tolist() == kept
    assert torch.equal(got[kept], delta[kept])


def test_nuslerp_takes_rows_or_columns_one_by_one():
    generator = torch.Generator().manual_seed(4)
    a, b, base = (torch.randn(5, 3, generator=generator) for _ in range(3))
    weight = (1.0, 2.0)

    def one(axis: int, i: int) -> torch.Tensor:
        vectors = [t.select(axis, i) for t in (a, b, base)]
        return merged_tensor("nuslerp", vectors[:2], vectors[2], weight=weight)

    rows = merged_tensor("nuslerp", [a, b], base, weight=weight, nuslerp_flatten=False)
    assert torch.allclose(rows, torch.stack([one(0, i) for i in range(5)]), atol=1e-6)
    columns = merged_tensor(
        "nuslerp", [a, b], base, weight=weight, nuslerp_flatten=False, nuslerp_row_wise=True
    )
    assert torch.allclose(columns, torch.stack([one(1, i) for i in range(3)], dim=1), atol=1e-6)
    assert not torch.allclose(rows, columns, atol=1e-3)


def test_nuslerp_of_opposite_vectors_is_on_the_line_between_them():
    x = torch.tensor([[1.0], [3.0], [-2.0]])
    got = merged_tensor("nuslerp", [x, -0.5 * x], None, nuslerp_flatten=False, weight=(1.0, 3.0))
    assert torch.allclose(got, 0.25 * x - 0.375 * x)


def test_multislerp_of_directions_that_cancel_out_is_the_weighted_sum():
    x, y = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 2.0])
    got = merged_tensor("multislerp", [x, -2.0 * x, y, -y], None, weight=(1.0, 1.0, 2.0, 2.0))
    assert torch.allclose(got, -x / 6.0)  # mergekit: ValueError
    zero = merged_tensor("multislerp", [x, y], None, weight=(1.0, -1.0))  # mergekit: NaN
    assert torch.allclose(zero, torch.tensor([1.0, -1.0]) / np.sqrt(2.0))


def test_karcher_mean_has_the_least_sum_of_squared_angles():
    generator = torch.Generator().manual_seed(2)
    inputs = [torch.randn(5, generator=generator) for _ in range(4)]

    def angles(point: torch.Tensor) -> float:
        cosines = [torch.cosine_similarity(point, x, dim=0) for x in inputs]
        return float(torch.stack(cosines).acos().square().sum())

    mean = merged_tensor("karcher", inputs, None, max_iter=200.0, tol=1e-7).double()
    inputs = [x.double() for x in inputs]
    assert float(mean.norm()) == pytest.approx(np.mean([float(x.norm()) for x in inputs]), rel=1e-6)
    for _ in range(50):
        aside = mean + 0.02 * torch.randn(5, generator=generator, dtype=torch.float64)
        assert angles(mean) < angles(aside)


def test_karcher_counts_a_zero_tensor_in_the_length_alone():
    x, y = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])
    got = merged_tensor("karcher", [x, y, torch.zeros(2)], None)
    assert torch.allclose(got, torch.full((2,), 2.0 / np.sqrt(2.0)))


def test_arcee_fusion_is_exact_where_a_fine_tune_is_near_its_base():
    generator = torch.Generator().manual_seed(3)
    base = (
        torch.randn(1100, 1000, generator=generator) * 0.02
    )  # mergekit: a random million of these
    x = base + torch.randn(base.shape, generator=generator) * 0.0005
    p, q = (np.exp(t.double().numpy()) for t in (x, base))
    p, q = (e / e.sum(axis=1, keepdims=True) + 1e-8 for e in (p, q))
    divergence = (p * np.log(p / q)).sum(axis=1, keepdims=True)
    importance = np.abs((x - base).double().numpy()) * divergence
    low, middle, high = np.sort(importance.reshape(-1))[[274999, 549999, 824999]]
    keep = importance >= middle + 1.5 * (high - low)
    got = (merged_tensor("arcee_fusion", [x], base) != base).numpy()
    assert 0.02 < keep.mean() < 0.1
    assert (
        np.count_nonzero(got != keep) <= 5
    )  # float32's rounding of an importance at the threshold


def test_model_stock_of_opposing_changes_is_the_base():
    base, delta = torch.ones(4), torch.tensor([1.0, 2.0, -1.0, 0.5])
    assert torch.equal(merged_tensor("model_stock", [base + delta, base - delta], base), base)


def test_model_stock_filter_wise_takes_rows_one_by_one():
    generator = torch.Generator().manual_seed(5)
    base, *inputs = (torch.randn(4, 6, generator=generator) for _ in range(4))
    inputs = [base + 0.3 * x + 0.5 for x in inputs]
    rows = [merged_tensor("model_stock", [x[i] for x in inputs], base[i]) for i in range(4)]
    whole = merged_tensor("model_stock", inputs, base, filter_wise=True)
    assert torch.allclose(whole, torch.stack(rows), atol=1e-6)
    assert not torch.allclose(whole, merged_tensor("model_stock", inputs, base), atol=1e-3)


def test_sce_of_equal_models_has_nothing_to_select():
    base, x = torch.zeros(6), torch.tensor([0.1, 0.2, -0.3, 0.4, 0.5, 0.7])
    assert torch.allclose(merged_tensor("sce", [x, x, x], base), x)
    assert torch.equal(merged_tensor("sce", [x, x, x], base, select_topk=0.5), base)


def test_nearswap_moves_the_base_by_t_at_most():
    base, x = torch.zeros(4), torch.tensor([0.5, -0.5, 0.05, -0.01])
    assert torch.allclose(
        merged_tensor("nearswap", [x], base, t=0.1), torch.tensor([0.1, -0.1, 0.05, -0.01])
    )
