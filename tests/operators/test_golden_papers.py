"""The papers' merge operators: against stored numbers, and against their formulas written out."""

import json
import math

import numpy as np
import pytest
import torch
from golden import paper_cases
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from operators.merge import MERGES, merge
from operators.merge.bitdelta import signs
from operators.merge.blocks import BLOCK
from operators.merge.darex import row_q, variance_proxy
from operators.merge.exclusive import claimed
from operators.merge.order import largest, order_statistics
from operators.merge.pcb import balance
from operators.merge.table import Values
from operators.merge.widen import column_changes
from operators.recipe import Founder, Merge
from operators.variation.mutation import orthogonal_coefficients

CASES = json.loads((paper_cases.PAPERS / "golden.json").read_text())["cases"]
BASE, X, Y, Z = (Founder(name, "0") for name in ("base", "x", "y", "z"))
# What makes two equal models merge to that model.
NEUTRAL = {
    "pcb": {"ratio": 1.0, "winsor": 0.0},
    "widen": {"t": 0.5},
    "exclusive": {"keep": 1.0},
    "evo_lora": {"beta": 0.5},
    "lora_concat": {"weight": 0.5},
}
DENSE = [*NEUTRAL, "bitdelta"]


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    drawn = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
    return torch.from_numpy(drawn).to(dtype)


def applied(method: str, inputs: list[Tensor], base: Tensor, **params: object) -> Tensor:
    """The method on one tensor, with its parameters checked and filled in as for a recipe."""
    recipe = merge(method, [X, Y, Z][: len(inputs)], base=BASE, params=params)
    assert isinstance(recipe, Merge)
    values = Values(dict(recipe.params))
    return MERGES[method].function(inputs, base, values, 0, "model.layers.0.mlp.weight")


@pytest.fixture(scope="module")
def results() -> dict[str, tuple[float, float]]:
    return {case: (worst, tolerance) for _, case, worst, tolerance in paper_cases.run_cases()}


@pytest.mark.parametrize("case", [c["id"] for c in CASES])
def test_case_gives_the_reference_numbers(case: str, results: dict[str, tuple[float, float]]):
    worst, tolerance = results[case]
    assert worst <= tolerance


# What a user merges is float32, through the table.


@pytest.mark.parametrize("inter", ["sum", "normsum", "pair"])
def test_pcb_on_float32_models_is_the_formula_in_float64(inter):
    tau = normal(1, 3, 4000, dtype=torch.float64) * 0.3
    base = normal(2, 4000, dtype=torch.float64)
    weights, size, ratio = (1.0, 0.5, -0.25), 4000, 0.2
    sizes = tau.abs().sort(dim=1).values
    low, high = sizes[:, 40:41], sizes[:, 3959:3960]  # winsor 0.01
    cut = tau.sign() * tau.abs().clamp(low, high)
    u = (cut.abs() - low) / (high - low)
    v = u * tau.sign()
    score = {
        "sum": torch.tanh(tau * tau.sum(0)),
        "normsum": torch.tanh(tau * v.sum(0)),
        "pair": torch.tanh(v[:, None] * v[None]).sum(1),
    }[inter]
    beta = torch.exp(3 * u**2) * score
    floor = beta.sort(dim=1).values[:, int(size * (1 - ratio))][:, None]
    s = ((beta - floor) / (beta.amax(1, keepdim=True) - floor)).clamp(min=0.0)
    task = (torch.tensor(weights)[:, None] * s * cut).sum(0) / s.sum(0).clamp(min=1e-12)
    made = applied(
        "pcb",
        [(base + t).float() for t in tau],
        base.float(),
        inter=inter,
        winsor=0.01,
        ratio=ratio,
        weight=weights,
        **{"lambda": 1.3},
    )
    assert made.dtype == torch.float32
    # Subtracting the base in float32 moves τ by 1e-7, and the entries at the threshold with it.
    assert torch.allclose(made.double(), base + 1.3 * task, rtol=0, atol=5e-6)


def test_pcb_keeps_the_published_number_of_entries():
    standing, _ = balance(
        list(normal(3, 2, 1000)), torch.zeros(1000), ratio=0.1, winsor=1e-4, inter="sum"
    )
    assert (standing > 0).sum(dim=1).tolist() == [1000 - int(1000 * 0.9) - 1] * 2


def test_pcb_gives_the_same_bits_beyond_one_block():
    """Blocks are how it is computed; they must not show in what comes out."""
    size = 2 * BLOCK + 3
    base, x, y = normal(4, 3, size)
    whole = applied("pcb", [x, y], base)
    order = torch.cat([torch.arange(5, size), torch.arange(5)])
    turned = applied("pcb", [x[order], y[order]], base[order])
    assert torch.equal(whole[order], turned)


def test_widen_sees_the_tokens_of_an_embedding_as_columns():
    base, x, y = normal(5, 3, 6, 4)
    values = Values({"s": 1.0, "t": 1.0, "lambda": 1.0})
    widen = MERGES["widen"].function
    rows = widen([x, y], base, values, 0, "model.embed_tokens.weight")
    columns = widen([x.T, y.T], base.T, values, 0, "model.layers.0.mlp.weight")
    assert torch.equal(rows, columns.T)
    assert not torch.allclose(rows, widen([x, y], base, values, 0, "model.layers.0.mlp.weight"))


def test_widen_turns_are_exact_where_one_minus_cosine_has_no_digits_left():
    base = normal(6, 50, 4, dtype=torch.float64)
    step = normal(7, 50, 4, dtype=torch.float64)
    unit = base / base.norm(dim=0)
    step -= unit * (unit * step).sum(0)  # at right angles, so that the angle is known
    angle = 1e-9
    moved = unit + angle * step / step.norm(dim=0)
    _, turned = column_changes(moved, base)
    assert torch.allclose(turned, torch.full((4,), angle**2 / 2, dtype=torch.float64), rtol=1e-5)


def test_exclusive_goes_by_priority_and_permutes_with_its_inputs():
    base, x, y = normal(8, 3, 5, 6)
    made = applied("exclusive", [x, y], base, keep=(0.7, 0.6), priority=(0.0, 1.0))
    assert torch.equal(
        made, applied("exclusive", [y, x], base, keep=(0.6, 0.7), priority=(1.0, 0.0))
    )
    from_y = (made == base + (y - base)).sum()
    assert from_y == round(0.6 * 30)
    assert (made == base + (x - base)).sum() == 30 - from_y  # only what is left, not 0.7 · 30


def test_exclusive_leaves_unchanged_entries_to_others():
    first, second = torch.tensor([0.0, 5.0, 0.0]), torch.tensor([1.0, 2.0, 3.0])
    assert claimed([first, second], [1.0, 1.0], [0, 1]).tolist() == [1.0, 5.0, 3.0]


def test_each_bit_of_bitdelta_brings_the_model_nearer():
    delta = normal(9, 20, 30)
    errors = [
        float((signs(delta, bits=k, rows=False, zero="zero") - delta).norm()) for k in (1, 2, 4, 8)
    ]
    assert errors == sorted(set(errors), reverse=True)
    assert errors[0] / float(delta.norm()) == pytest.approx(math.sqrt(1 - 2 / math.pi), abs=0.02)


def test_bitdelta_keeps_what_did_not_change():
    base, x = normal(10, 2, 8, 8)
    x[2] = base[2]
    made = applied("bitdelta", [x], base, bits=2.0, rows=True)
    assert torch.equal(made[2], base[2])
    assert not torch.equal(applied("bitdelta", [x], base, zero="plus")[2], base[2])


def test_evo_lora_takes_whole_models_by_svd():
    base, x, y = normal(11, 3, 6, 9)
    made = applied("evo_lora", [x, y], base, beta=(0.5, -0.25), rank=4.0)
    delta = (0.5 * (x - base) - 0.25 * (y - base)).double()
    u, sigma, vh = torch.linalg.svd(delta)
    assert torch.allclose(made, (base + (u[:, :4] * sigma[:4]) @ vh[:4]).float(), atol=1e-6)
    vector = applied("evo_lora", [x[0]], base[0], alpha=4 / 9)
    assert (vector != base[0]).sum() == 4


def test_published_evo_lora_says_that_it_needs_adapters():
    base, x = normal(12, 2, 4, 4)
    with pytest.raises(ValueError, match=r"evo_lora_published needs LoRA adapters.*Use evo_lora"):
        applied("evo_lora_published", [x], base)


# All methods at once.


@pytest.mark.parametrize("method", NEUTRAL)
@pytest.mark.parametrize("shape", [(6, 5), (7,), (3, 2, 2), (1,), ()])
def test_a_model_merged_with_itself_is_itself(method, shape):
    base, x = normal(13, 2, *shape)
    assert torch.allclose(applied(method, [x, x], base, **NEUTRAL[method]), x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", DENSE)
@pytest.mark.parametrize("shape", [(4, 5), (5,), (2, 3, 2), (1,), (1, 1), ()])
@pytest.mark.parametrize("value", [0.0, -2.0])
def test_zeros_ties_and_constants_stay_finite(method, shape, value):
    base, flat = torch.zeros(shape), torch.full(shape, value)
    for inputs in ([flat], [flat, flat], [flat, base, -flat]):
        made = applied(method, inputs, base)
        assert made.shape == base.shape
        assert bool(made.isfinite().all())
    assert torch.equal(applied(method, [base, base], base), base)


@pytest.mark.parametrize("method", DENSE)
@given(seed=st.integers(0, 2**32), turn=st.permutations(range(3)))
def test_inputs_and_their_parameters_may_change_places(method, seed, turn):
    base, *inputs = normal(seed, 4, 5, 6)
    each = {p.name for p in MERGES[method].parameters if p.per_input}
    params = dict.fromkeys(each, (0.9, 0.3, 0.6))
    first = applied(method, inputs, base, **params)
    turned = {name: tuple(v[i] for i in turn) for name, v in params.items()}
    second = applied(method, [inputs[i] for i in turn], base, **turned)
    assert torch.allclose(first, second, rtol=0, atol=5e-6)


@pytest.mark.parametrize("method", DENSE)
def test_the_number_of_threads_does_not_show(method):
    base, *inputs = normal(14, 3, 301, 400)
    made, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            made.append(applied(method, inputs, base))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


# What they are made of.


@given(values=st.lists(st.integers(-4, 4), min_size=1, max_size=30), share=st.floats(0.0, 1.0))
def test_largest_counts_exactly_among_ties(values, share):
    tensor, count = torch.tensor(values, dtype=torch.float32), round(share * len(values))
    mask = largest(tensor, count)
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]
    assert mask.nonzero().reshape(-1).tolist() == sorted(expected)
    place = min(count, len(values) - 1)
    assert order_statistics(tensor, [0, place]) == (min(values), sorted(values)[place])


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_darex_divides_by_a_power_of_what_is_kept(method):
    base, x = torch.zeros(20, 30), normal(15, 20, 30)

    def dare(rescale: str, exponent: float = 1.0, density: float = 0.25) -> Tensor:
        params = {"rescale": rescale, "q_exponent": exponent, "density": density}
        return applied(method, [x], base, **params)

    kept = dare("none")
    assert 100 < int((kept != 0.0).sum()) < 200
    assert torch.equal(dare("darex", 1.0), dare("inverse_density"))
    assert torch.allclose(dare("darex", 0.5), kept * 2.0, rtol=1e-6)
    assert torch.equal(dare("darex", 0.0), kept)
    assert not dare("darex", 1.0, density=0.0).any()


@given(seed=st.integers(0, 2**32), offset=st.floats(-3.0, 3.0), size=st.floats(0.01, 3.0))
def test_row_q_is_no_worse_than_a_fine_scan(seed, offset, size):
    """Rows whose best q lies anywhere in [1 − p, 1], not only at 1 as in the stored case."""
    drop, eta, gamma = 0.9, 0.45, 0.95
    c = size * (normal(seed, 5, 24, dtype=torch.float64) + offset)
    q = row_q(c, drop=drop, eta=eta, gamma=gamma)

    def bound(at: Tensor) -> Tensor:
        first = (1 - (1 - drop) / at) * c.sum(1, keepdim=True)
        second = eta**2 * variance_proxy(drop) * (c**2).sum(1, keepdim=True) / (4 * at**2)
        return (eta * first + second + math.log(2 / (1 - gamma))).abs()

    grid = torch.linspace(1 - drop, 1.0, 2000, dtype=torch.float64)[None]
    assert bool((bound(q[:, None])[:, 0] <= bound(grid).amin(dim=1) + 1e-9).all())
    assert bool(((q >= 1 - drop - 1e-12) & (q <= 1.0)).all())


def test_novel_coefficients_are_at_right_angles_even_to_dependent_ones():
    row = np.array([1.0, 2.0, 0.0, -1.0])
    previous = np.stack([row, 2.0 * row, np.zeros(4)])
    made = orthogonal_coefficients(previous, np.random.default_rng(0))
    assert abs(previous @ made).max() < 1e-12
    assert np.linalg.norm(made) == pytest.approx(1.0, abs=1e-12)
    other = orthogonal_coefficients(previous, np.random.default_rng(1))
    assert abs(made @ other) < 0.99  # drawn, not always the same
    with pytest.raises(ValueError, match="no direction left"):
        orthogonal_coefficients(np.eye(4), np.random.default_rng(0))
