"""Single merges, noise, and materialising in general. What all merges share: test_merge_properties."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import BASE, SHAPES, A, B, C, built, founders, model, same

from operators.build.materialize import Materializer, MissingFounderError
from operators.merge import merge
from operators.recipe import Founder, Noise, linear
from operators.recipe.coefficients import Grouped, Rule
from operators.tensors.noise import bernoulli, bernoulli_each, normal
from operators.tensors.weights import WeightsMismatchError, allocate, check_fit, weights_of


def test_dare_keeps_what_it_should_and_rescales():
    delta = model(1, 0.1)
    given = founders() | {A: weights_of({n: founders()[BASE][n] + delta[n] for n in SHAPES})}
    name, share = "model.layers.0.mlp.up_proj.weight", []
    for seed in range(200):
        recipe = merge("dare_ties", [A], base=BASE, params={"density": 0.3}, seed=seed)
        moved = built(recipe, given)[name] - given[BASE][name]
        kept = moved.abs() > 1e-6
        share.append(float(kept.float().mean()))
        if kept.any():  # l1: what is left has the sum of magnitudes of what there was
            assert float(moved.abs().sum()) == pytest.approx(
                float(delta[name].abs().sum()), rel=1e-3
            )
    assert sum(share) / len(share) == pytest.approx(0.3, abs=0.02)


def test_dare_drops_other_elements_in_every_tensor_and_model():
    masks = {bernoulli(3, n, (64,), 0.5).numpy().tobytes() for n in ("x/0", "x/1", "y/0", "y/1")}
    assert len(masks) == 4


def test_ties_keeps_exactly_the_density_among_equal_magnitudes():
    base = weights_of({"x": torch.zeros(10)})
    tensors = {BASE: base, A: weights_of({"x": torch.tensor([1.0, -1.0] * 5)})}
    recipe = merge("ties", [A], base=BASE, params={"density": 0.3})
    assert int((Materializer(base.layout, tensors).build(recipe)["x"] != 0).sum()) == 3


def test_parameters_per_layer_group_reach_the_merge():
    by_half = Grouped((Rule((), (0.0, 1.0)),))
    made = built(merge("slerp", [A, B], params={"t": by_half}))
    given = founders()
    assert torch.allclose(
        made["model.layers.0.mlp.up_proj.weight"], given[A]["model.layers.0.mlp.up_proj.weight"]
    )
    assert torch.allclose(
        made["model.layers.1.mlp.up_proj.weight"], given[B]["model.layers.1.mlp.up_proj.weight"]
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("tie", [A, B]), "Did you mean 'ties'"),
        (("ties", [A, B]), "needs a base"),
        (("slerp", [A, B, C]), "takes 2 models, got 3"),
        (("ties", [A, B], {"densty": 1.0}), "unknown parameter 'densty'"),
        (("ties", [A, B], {"density": -0.5}), "density must be finite and 0 or more, got -0.5"),
        (("ties", [A, B], {"weight": (1.0,)}), "weight has 1 values for 2 models"),
        (("dare_ties", [A, B], {"rescale": "l2"}), "rescale must be one of l1"),
        (("linear", [A, B], {"normalize": 1.0}), "normalize must be true or false"),
        (("linear", [A, B], {"weight": float("nan")}), "weight must be finite"),
        (("linear", [A, B], {"weight": None}), "linear: weight must be a number, got None"),
        (("linear", [A, B], {"weight": {}}), "linear: weight must be a number, got {}"),
        (("linear", [A, B], {"weight": [None, 1.0]}), "linear: weight must be a number, got None"),
        (("linear", [A, B], {"weight": [True, 1.0]}), "linear: weight must be a number, got True"),
        (("ties", [A, B], {"lambda": "1"}), "ties: lambda must be a number, got '1'"),
        (
            ("nearswap", [A], {"t": float("inf")}),
            "nearswap: t must be finite, got inf",
        ),
    ],
)
def test_wrong_merges_say_what_is_wrong(arguments, says):
    method, inputs, *params = arguments
    base = BASE if params else None
    with pytest.raises(ValueError, match=says):
        merge(method, inputs, base=base, params=params[0] if params else None)


def test_noise_depends_on_seed_and_tensor_alone():
    noise = Noise(11, 0.5)
    whole = built(linear({A: 1.0, noise: 0.1}))
    reversed_founders = dict(reversed(founders().items()))
    assert same(whole, built(linear({noise: 0.1, A: 1.0}), reversed_founders))
    names = list(SHAPES)
    assert len({float(normal(11, n, (1,))) for n in names}) == len(names)  # no two tensors alike


def test_noise_is_standard_normal_and_sparse_at_its_rate():
    draws = normal(5, "x", (200_000,))
    assert abs(float(draws.mean())) < 0.01
    assert float(draws.std()) == pytest.approx(1.0, abs=0.01)
    assert float((draws.abs() < 1.96).float().mean()) == pytest.approx(0.95, abs=0.003)
    assert float(bernoulli(5, "x", (200_000,), 0.1).float().mean()) == pytest.approx(0.1, abs=0.003)


def test_the_first_noise_numbers_never_change():
    # Any individual ever logged must be rebuilt from its seed: these are frozen for good.
    got = [round(float(v), 6) for v in normal(0, "w", (4,))]
    assert got == [-2.016676, -0.354726, -1.288131, 0.600631]
    assert bernoulli(0, "w", (12,), 0.5).int().tolist() == [1, 0, 1, 0, 0, 0, 1, 1, 1, 1, 0, 0]


def test_equal_rates_for_each_element_draw_the_mask_of_that_rate():
    rates = torch.full((3, 70_000), 0.3, dtype=torch.float64)
    assert torch.equal(bernoulli_each(4, "w", rates), bernoulli(4, "w", (3, 70_000), 0.3))
    ends = bernoulli_each(4, "w", torch.tensor([0.0, 1.0] * 500))
    assert ends.tolist() == [False, True] * 500


def test_low_rank_noise_has_its_rank_and_unit_variance():
    from operators.tensors.noise import direction

    matrix = direction(3, "w", (60, 50), 1.0, 4)
    assert int(torch.linalg.matrix_rank(matrix)) == 4
    assert float(matrix.std()) == pytest.approx(1.0, abs=0.15)


@given(st.integers(0, 2**32), st.floats(0.01, 1.0))
def test_children_are_the_same_bits_whatever_was_built_before(seed, weight):
    given_founders = founders()
    recipe = linear({A: weight, B: 1 - weight, Noise(seed): 0.01})
    alone = built(recipe, given_founders)
    busy = Materializer(given_founders[BASE].layout, given_founders)
    buffer = allocate(given_founders[BASE].layout)
    for other in (A, Noise(seed), merge("ties", [A, B], base=BASE)):
        busy.build(linear({other: 0.5}), buffer)
    assert same(busy.build(recipe, buffer), alone)


def test_a_missing_or_changed_founder_is_named():
    with pytest.raises(MissingFounderError, match="founder 'a'"):
        built(linear({Founder("a", "other digest"): 0.5, B: 0.5}))


def test_models_that_do_not_fit_are_named_with_tensor_shapes_and_files():
    ours = model(0).layout
    other = weights_of(
        {n: torch.zeros(s if n != "model.norm.weight" else (9,)) for n, s in SHAPES.items()}
    )
    with pytest.raises(
        WeightsMismatchError,
        match=r"model.norm.weight.*float32\[4\] in zoo/a but float32\[9\] in zoo/b",
    ):
        check_fit(ours, other.layout, expected_from="zoo/a", other_from="zoo/b")
    fewer = weights_of({n: torch.zeros(s) for n, s in list(SHAPES.items())[1:]})
    with pytest.raises(
        WeightsMismatchError, match=r"embed_tokens.weight' is in zoo/a but not in zoo/b"
    ):
        check_fit(ours, fewer.layout, expected_from="zoo/a", other_from="zoo/b")
