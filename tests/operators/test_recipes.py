"""Recipes: one id for one individual, one sum however deep, and JSON that rebuilds them."""

import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import BASE, A, B, C, built, close, founders, same

from operators.build.architectures import ARCHITECTURES
from operators.merge import merge
from operators.recipe import Founder, Linear, Merge, Noise, Recipe, linear, walk
from operators.recipe.canonical import from_json, to_json
from operators.recipe.coefficients import Grouped, Rule, add, multiply, value_at
from operators.recipe.layers import follows_layers, layer_count, layer_index

NAMES = (
    "model.embed_tokens.weight",
    *(f"model.layers.{i}.{p}.weight" for i in range(12) for p in ("self_attn.q", "mlp.up")),
)

values = st.lists(st.floats(-2, 2), min_size=1, max_size=4).map(tuple)
coefficients = st.one_of(
    st.floats(-2, 2),
    st.builds(
        lambda filtered, default: Grouped((*(Rule(*r) for r in filtered), Rule((), default))),
        st.lists(
            st.tuples(st.sampled_from([("mlp",), ("self_attn",), ("layers",)]), values), max_size=2
        ),
        values,
    ),
)


@given(coefficients, coefficients, st.sampled_from(NAMES))
def test_coefficients_multiply_and_add_tensor_by_tensor(a, b, name):
    layers = layer_count(NAMES)
    x, y = value_at(a, name, layers), value_at(b, name, layers)
    assert value_at(multiply(a, b), name, layers) == pytest.approx(x * y, abs=1e-12)
    assert value_at(add([a, b]), name, layers) == pytest.approx(x + y, abs=1e-12)


def test_layer_groups_split_the_layers_evenly_and_the_ends_belong_to_the_first_and_the_last():
    by_half = Grouped((Rule(("mlp",), (1.0, 2.0)), Rule((), (5.0,))))
    in_layers = [value_at(by_half, f"model.layers.{i}.mlp.up.weight", 4) for i in range(4)]
    assert in_layers == [1, 1, 2, 2]
    assert value_at(by_half, "model.layers.3.self_attn.q.weight", 4) == 5
    ends = Grouped((Rule((), (3.0, 4.0)),))
    assert value_at(ends, "model.embed_tokens.weight", 4) == 3
    assert value_at(ends, "model.norm.weight", 4) == 4
    assert value_at(ends, "lm_head.weight", 4) == 4
    assert value_at(ends, "fc1.weight", 0) == 3  # a model without layers is one group


@pytest.mark.parametrize("bare", [False, True], ids=["whole", "bare"])
@pytest.mark.parametrize("known", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_every_known_architecture_has_its_embedding_before_and_its_head_after_the_layers(
    known, bare
):
    known = known.without_prefix() if bare else known
    assert layer_index(known.name(3, known.outputs[0])) == 3
    assert not follows_layers(known.embedding)
    assert all(follows_layers(f"{prefix}weight") for prefix in known.head)


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("transformer.wpe.weight", False),
        ("transformer.word_embeddings_layernorm.bias", False),
        ("model.tok_embeddings.weight", False),
        ("shared.weight", False),
        ("model.decoder.project_in.weight", False),
        ("model.decoder.project_out.weight", True),
        ("gpt_neox.final_layer_norm.bias", True),
        ("output.weight", True),
        ("score.weight", True),
    ],
)
def test_names_outside_the_layers_of_other_architectures(name, after):
    assert follows_layers(name) == after


def test_a_coefficient_without_a_default_is_refused():
    with pytest.raises(ValueError, match="must have no filter"):
        Grouped((Rule(("mlp",), (1.0,)),))


def test_ids_do_not_depend_on_the_order_of_terms_or_on_how_the_sum_was_nested():
    terms = [(A, 0.1), (B, 0.2), (C, 0.3), (Noise(7, 0.5), 0.001)]
    straight = linear(terms)
    shuffled = random.Random(0).sample(terms, len(terms))
    assert linear(shuffled).id == straight.id
    nested = linear([(linear(terms[:2]), 1.0), (linear(terms[2:]), 1.0)])
    assert nested.id == straight.id


def test_ids_are_the_same_in_another_process():
    code = "from operators.recipe import *; print(linear({Founder('a','0'): 0.1, Noise(3, 0.5): 0.2}).id)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == linear({Noise(3, 0.5): 0.2, A: 0.1}).id


def test_changed_founder_files_change_every_id_made_of_them():
    assert linear({A: 0.5, B: 0.5}).id != linear({Founder("a", "1"): 0.5, B: 0.5}).id


def test_sums_of_sums_stay_one_sum_over_founders_and_noise():
    population: list[Recipe] = [A, B, C]
    rng = np.random.default_rng(0)
    for generation in range(40):
        i, j = rng.choice(3, 2, replace=False)
        child = linear([(population[i], 0.6), (population[j], 0.4)])
        population[generation % 3] = linear([(child, 1.0), (Noise(generation), 0.01)])
    for recipe in population:
        assert isinstance(recipe, Linear)
        assert all(isinstance(part, Founder | Noise) for part, _ in recipe.terms)
        assert sum(c for part, c in recipe.terms if isinstance(part, Founder)) == pytest.approx(1.0)


def test_flattening_does_not_change_the_model():
    inner = linear({A: 0.25, B: 0.75})
    nested = Linear(((inner, 0.5), (C, 0.5)))
    assert close(built(nested), built(linear({inner: 0.5, C: 0.5})))


def test_a_model_mixed_with_itself_is_itself():
    assert linear([(A, 0.3), (A, 0.7)]) == A
    assert same(built(linear([(A, 0.3), (A, 0.7)])), founders()[A])


def test_ancestries_of_merges_stay_small_however_deep():
    a, b = A, B
    for _ in range(60):  # as a tree this would have 2**60 leaves
        a, b = merge("ties", [a, b], base=BASE), merge("slerp", [a, b])
    assert len(walk(a)) < 130
    assert from_json(to_json(a)).id == a.id


@given(
    st.lists(
        st.tuples(st.sampled_from([A, B, C, Noise(1), Noise(2, 0.1)]), coefficients), min_size=1
    )
)
def test_json_gives_back_the_same_recipe(terms):
    try:
        recipe = linear(terms)
    except ValueError:
        return  # all terms cancelled
    assert from_json(to_json(recipe)) == recipe
    merged = merge("dare_ties", [recipe, A], base=BASE, params={"density": (0.2, 0.5)}, seed=4)
    back = from_json(to_json(merged))
    assert isinstance(back, Merge)
    assert (back, back.params, back.seed) == (merged, merged.params, 4)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"linear":[[{"recipe":"x"},1]]}', '{"founder":1}', "null"]
)
def test_what_is_no_recipe_is_refused_as_such(text):
    with pytest.raises(ValueError, match="not a recipe"):
        from_json(text)


def test_infinite_coefficients_are_refused_by_name():
    with pytest.raises(ValueError, match="coefficient of a is inf"):
        linear({A: float("inf")})


def test_ids_do_not_depend_on_the_number_type():
    assert Noise(np.int64(1), 1) == Noise(1, 1.0)
    assert from_json(to_json(linear({A: 1.0, Noise(2, 1): 0.5}))) == linear({A: 1, Noise(2): 0.5})
    listed = merge("ties", [A, B], base=BASE, params={"weight": [1, 2]}, seed=np.int64(0))
    assert listed == merge("ties", [A, B], base=BASE, params={"weight": (1.0, 2.0)})


def test_groups_that_repeat_are_fewer_groups():
    doubled = Grouped((Rule((), (1.0, 1.0, 2.0, 2.0)),))
    assert linear({A: doubled}) == linear({A: Grouped((Rule((), (1.0, 2.0)),))})


def test_coefficients_too_large_to_add_up_are_refused():
    with pytest.raises(ValueError, match=r"adds up to inf|too large"):
        linear({linear({A: 1e200, B: 1.0}): 1e200})
