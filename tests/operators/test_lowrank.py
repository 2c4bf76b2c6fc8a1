"""Adapters as factors: exact sums, truncation, and recipes over them against the same made dense."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import BASE, SHAPES, A, B, C, close, model
from torch import Tensor

from operators.build.materialize import Materializer
from operators.merge import merge
from operators.recipe import Founder, Noise, Recipe, linear
from operators.recipe.coefficients import Grouped, Rule
from operators.tensors.low_rank import (
    Adapter,
    Factors,
    factorize,
    no_change,
    truncate,
    weighted_concat,
)
from operators.tensors.weights import Weights, weights_of

ATTENTION = "model.layers.0.self_attn.q_proj.weight"
MLP = "model.layers.1.mlp.up_proj.weight"
EMBEDDING = "model.embed_tokens.weight"
# Different ranks and different tensors: only A and B change the MLP, only C the embedding.
TARGETS = {A: {ATTENTION: 2, MLP: 2}, B: {ATTENTION: 3, MLP: 1}, C: {ATTENTION: 1, EMBEDDING: 2}}


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    drawn = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
    return torch.from_numpy(drawn).to(dtype)


def factors(seed: int, out: int, rank: int, inner: int) -> Factors:
    b, a = normal(seed, out, rank), normal(seed + 1, rank, inner)
    return Factors(b.float(), a.float())


def product(part: Factors) -> Tensor:
    return part.b.double() @ part.a.double()


@pytest.fixture(scope="module")
def adapters() -> dict[Founder, Weights | Adapter]:
    made = {
        founder: Adapter(
            BASE,
            {
                name: factors(100 * i + k, SHAPES[name][0], rank, SHAPES[name][1])
                for k, (name, rank) in enumerate(targets.items())
            },
        )
        for i, (founder, targets) in enumerate(TARGETS.items(), start=1)
    }
    return {BASE: model(0), **made}


@pytest.fixture(scope="module")
def dense(adapters: dict[Founder, Weights | Adapter]) -> dict[Founder, Weights | Adapter]:
    """The same founders as whole models: the base with B·A added."""
    base = adapters[BASE]
    assert isinstance(base, Weights)
    made: dict[Founder, Weights | Adapter] = {BASE: base}
    for founder, adapter in adapters.items():
        if isinstance(adapter, Adapter):
            tensors = dict(base.tensors)
            for name, part in adapter.factors.items():
                tensors[name] = (tensors[name].double() + product(part)).float()
            made[founder] = weights_of(tensors)
    return made


def materializer(given: dict[Founder, Weights | Adapter]) -> Materializer:
    base = given[BASE]
    assert isinstance(base, Weights)
    return Materializer(base.layout, given)


def concat(inputs: list[Recipe], **params: object) -> Recipe:
    return merge("lora_concat", inputs, base=BASE, params=params)


AVERAGE = linear({A: 0.5, B: 0.25, C: 0.25})
BY_TENSOR = Grouped((Rule(("self_attn",), (1.0, -0.5)), Rule((), (0.25,))))
CONCAT = concat([A, B, C], weight=(0.7, -0.4, 0.25))
# Recipes that stay changes of low rank, and recipes that need whole tensors.
LOW_RANK = {
    "founder": A,
    "base": BASE,
    "average": AVERAGE,
    "extrapolation": linear({A: 1.5, B: 1.0, BASE: -1.5}),
    "concat": CONCAT,
    "concat rank 2": concat([A, B, C], weight=(0.7, -0.4, 0.25), rank=2.0),
    "concat of sums": concat([AVERAGE, linear({B: 2.0, BASE: -1.0})], rank=3.0),
    "sum of concats": linear({CONCAT: 0.5, C: 0.75, BASE: -0.25}),
    "evo_lora": merge("evo_lora", [A, B], base=BASE, params={"beta": (0.8, -0.5)}),
    "weights by tensor": concat([A, B], weight=(BY_TENSOR, 0.5)),
}
WHOLE = {
    "ties": merge("ties", [A, B, C], base=BASE),
    "slerp": merge("slerp", [A, B], params={"t": 0.3}),
    "pcb": merge("pcb", [A, B, C], base=BASE, params={"ratio": 0.5}),
    "not a change of the base": linear({A: 0.5, B: 0.25}),
    "full-rank noise": linear({A: 1.0, Noise(7): 0.01}),
    "ties of concats": merge("ties", [CONCAT, AVERAGE], base=BASE, params={"density": 0.6}),
    "concat of ties": concat([merge("ties", [A, B], base=BASE), C], weight=(0.5, 0.5), rank=2.0),
    "another base": merge("lora_concat", [A, B], base=C),
    "sum of pcb": linear({merge("pcb", [A, CONCAT], base=BASE): 0.5, AVERAGE: 0.5}),
}
EVERY = {**LOW_RANK, **WHOLE}


@pytest.mark.parametrize("recipe", EVERY.values(), ids=list(EVERY))
def test_recipes_over_adapters_are_those_over_the_founders_made_dense(recipe, adapters, dense):
    assert close(materializer(adapters).build(recipe), materializer(dense).build(recipe))


@pytest.mark.parametrize("recipe", LOW_RANK.values(), ids=list(LOW_RANK))
def test_changes_of_low_rank_come_as_factors_that_rebuild_the_model(recipe, adapters):
    owner = materializer(adapters)
    found, built = owner.factors(recipe), owner.build(recipe)
    assert found is not None
    for name, shape in SHAPES.items():
        base = adapters[BASE][name]
        if name in found:
            assert found[name].rank > 0
            assert found[name].shape == shape
            assert torch.allclose(base + found[name].dense(), built[name], rtol=0, atol=1e-6)
        else:
            assert torch.equal(base, built[name])  # no adapter changes it: the base, bit for bit


@pytest.mark.parametrize("recipe", WHOLE.values(), ids=list(WHOLE))
def test_what_is_no_change_of_low_rank_has_no_factors(recipe, adapters):
    assert materializer(adapters).factors(recipe) is None


@pytest.mark.parametrize("recipe", LOW_RANK.values(), ids=list(LOW_RANK))
def test_whole_models_have_no_factors(recipe, dense):
    assert materializer(dense).factors(recipe) is None


def test_ranks_add_up_to_the_width_of_the_matrix_until_they_are_cut(adapters):
    owner = materializer(adapters)
    whole = owner.factors(CONCAT)
    assert {n: f.rank for n, f in whole.items()} == {ATTENTION: 4, MLP: 3, EMBEDDING: 2}
    cut = owner.factors(concat([A, B, C], rank=2.0))
    assert {n: f.rank for n, f in cut.items()} == {ATTENTION: 2, MLP: 2, EMBEDDING: 2}


def test_averaging_the_factors_is_wrong_and_concatenating_them_is_right(adapters, dense):
    """ΔW of the average is Σw·BA. Averaging A and B one by one gives Σw·B · Σw·A, another model."""
    parts = [factors(1, 8, 4, 10), factors(3, 8, 4, 10)]
    weights = [0.5, 0.5]
    right = sum(w * product(p) for p, w in zip(parts, weights, strict=True))
    made = product(weighted_concat(parts, weights))
    separate = (
        sum(w * p.b for p, w in zip(parts, weights, strict=True)).double()
        @ sum(w * p.a for p, w in zip(parts, weights, strict=True)).double()
    )
    assert torch.allclose(made, right, rtol=0, atol=1e-12)
    assert float((separate - right).norm() / right.norm()) > 0.5
    # The published form of evo_lora is that trap, kept for comparison under its own name.
    same_rank = merge("evo_lora_published", [A, A], base=BASE, params={"beta": 0.5})
    exact = merge("evo_lora", [A, A], base=BASE, params={"beta": 0.5})
    owner = materializer(adapters)
    assert close(owner.build(exact), dense[A])
    assert close(owner.build(same_rank), dense[A])  # equal adapters hide it
    opposite = merge("evo_lora_published", [A], base=BASE, params={"beta": -1.0})
    assert close(owner.build(opposite), dense[A])  # and the sign of a weight is lost


def test_published_evo_lora_refuses_different_ranks_by_name(adapters):
    with pytest.raises(ValueError, match="all must have one rank; these have 2, 3"):
        materializer(adapters).build(merge("evo_lora_published", [A, B], base=BASE))


def test_published_evo_lora_refuses_whole_models(dense):
    with pytest.raises(ValueError, match="needs LoRA adapters as founders"):
        materializer(dense).build(merge("evo_lora_published", [A, B], base=BASE))


def test_adapters_of_two_bases_are_refused(adapters):
    other = Adapter(Founder("other", "1"), {})
    with pytest.raises(ValueError, match="different bases"):
        materializer({**adapters, Founder("d", "0"): other})


# The algebra.

shapes = st.tuples(*(st.integers(1, 7) for _ in range(2)))


@given(
    seed=st.integers(0, 2**32),
    shape=shapes,
    ranks=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    data=st.data(),
)
def test_sums_are_exact_whatever_the_ranks(seed, shape, ranks, data):
    weights = data.draw(
        st.lists(st.floats(-2.0, 2.0), min_size=len(ranks), max_size=len(ranks)), label="weights"
    )
    parts = [factors(seed + 10 * i, shape[0], r, shape[1]) for i, r in enumerate(ranks)]
    made = weighted_concat(parts, weights)
    exact = sum(w * product(p) for p, w in zip(parts, weights, strict=True))
    assert made.shape == shape
    assert torch.allclose(product(made), exact, rtol=0, atol=1e-12)


@given(seed=st.integers(0, 2**32), shape=shapes, rank=st.integers(0, 9), limit=st.integers(0, 9))
def test_truncation_is_numpys_svd_and_reports_what_it_left_out(seed, shape, rank, limit):
    whole = factors(seed, shape[0], rank, shape[1])
    made, lost = truncate(whole, limit)
    u, sigma, vh = np.linalg.svd(product(whole).numpy(), full_matrices=False)
    kept = rank if limit == 0 else limit
    best = (u[:, :kept] * sigma[:kept]) @ vh[:kept]
    scale = 1.0 + float(sigma.max(initial=0.0))
    assert np.abs(product(made).numpy() - best).max() <= 1e-12 * scale
    assert made.rank <= kept
    energy = float((sigma**2).sum())
    tail = float((sigma[kept:] ** 2).sum())
    assert lost == pytest.approx(tail / energy if energy else 0.0, abs=1e-13)


@given(seed=st.integers(0, 2**32), shape=shapes, rank=st.integers(0, 4))
def test_factorize_finds_the_rank_and_gives_the_matrix_back(seed, shape, rank):
    matrix = product(factors(seed, shape[0], rank, shape[1]))
    made, lost = factorize(matrix)
    assert made.rank == min(rank, *shape)
    assert lost == pytest.approx(0.0, abs=1e-25)
    assert torch.allclose(product(made), matrix, rtol=0, atol=1e-12)


def test_factors_share_the_singular_values_evenly():
    made, _ = truncate(factors(5, 9, 6, 8), 3)
    assert torch.allclose(made.b.norm(dim=0), made.a.norm(dim=1))


def test_products_are_float64_rounded_once():
    part = factors(9, 40, 30, 50)
    assert torch.equal(part.dense(), product(part).float())


def test_no_change_has_rank_0_for_any_shape():
    for shape in ((4, 6), (5,), (2, 3, 4), ()):
        part = no_change(shape)
        assert part.rank == 0
        assert part.dense().numel() == int(np.prod(shape))
        assert not part.dense().any()


def test_factors_that_have_no_product_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 2\) and \(3, 5\) have no product"):
        Factors(torch.zeros(4, 2), torch.zeros(3, 5))
