"""Genes: every merge method as a vector, and back as a valid recipe."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from evo.algorithms import Start
from evo.algorithms.gene_space import GeneSettings, checked_methods, gene_space
from evo.algorithms.genes import GeneSpace
from evo.errors import EvoError
from operators.merge import MERGES
from operators.recipe import Founder, Linear, Merge
from operators.recipe.canonical import from_json, to_json
from operators.recipe.coefficients import Grouped, value_at

BASE = Founder("base", "0")
SEARCHED = {n: m for n, m in MERGES.items() if any(p.search for p in m.parameters)}
LAYERED = {n: m for n, m in SEARCHED.items() if m.scope == "tensor"}
Q0, Q3 = "model.layers.0.self_attn.q_proj.weight", "model.layers.3.self_attn.q_proj.weight"
UP0, EMBED = "model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight"


def start(count=3, seed=5):
    return Start(tuple(Founder(f"f{i}", str(i)) for i in range(count)), BASE, seed, layers=4)


def space_of(method, count=3, **changes) -> GeneSpace:
    least, most = MERGES[method].inputs
    return gene_space(
        [method], GeneSettings(**changes), start(min(max(count, least), most or count))
    )


def points(space: GeneSpace, seed: int, count: int = 5):
    rng = np.random.default_rng(seed)
    return space.low + rng.random((count, space.size)) * (space.high - space.low)


def numbers_of(value):
    """All numbers of a parameter's value."""
    values = value if isinstance(value, tuple) else (value,)
    grouped = [
        [n for r in v.rules for n in r.values] if isinstance(v, Grouped) else [v] for v in values
    ]
    return [n for v in grouped for n in v]


@pytest.mark.parametrize("method", SEARCHED)
def test_every_point_of_every_method_is_a_recipe_within_the_bounds(method):
    space = space_of(method)
    for x in [space.low, space.high, *points(space, 1), space.low - 9.0, space.high + 9.0]:
        recipe = space.decode(x)
        assert from_json(to_json(recipe)) == recipe
        if isinstance(recipe, Merge):
            assert recipe.method == method
            for name, value in recipe.params:
                parameter = MERGES[method].parameter(name)
                if parameter.valid and not isinstance(value, bool | str):
                    low, high = parameter.valid
                    assert all(low <= n <= high for n in numbers_of(value))


@pytest.mark.parametrize("method", LAYERED)
def test_layer_groups_and_filters_split_every_gene_of_every_method(method):
    one = space_of(method)
    many = space_of(method, layer_groups=2, filters=("self_attn", "mlp"))
    assert many.size == 6 * one.size == len(many.names) == len(set(many.names))
    assert many.decode(points(many, 2)[0]) != many.decode(points(many, 3)[0])


@pytest.mark.parametrize("method", LAYERED)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_coarse_point_is_the_same_model_in_a_finer_space(method, seed):
    coarse = space_of(method)
    fine = space_of(method, layer_groups=4, filters=("mlp",))
    x = points(coarse, seed, 1)[0]
    assert fine.decode(fine.encode(coarse.values(x))) == coarse.decode(x)


@pytest.mark.parametrize("method", SEARCHED)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_encoding_turns_decoded_values_back(method, seed):
    space = space_of(method)
    x = np.where(space.steps > 0, np.rint(points(space, seed, 1)[0]), points(space, seed, 1)[0])
    assert space.encode(space.values(x)) == pytest.approx(x)
    assert space.from_unit(space.to_unit(x)) == pytest.approx(x)


@pytest.mark.parametrize("method", [n for n, m in SEARCHED.items() if m.scope == "model"])
@pytest.mark.parametrize("changes", [{"layer_groups": 2}, {"filters": ("mlp",)}])
def test_methods_that_see_whole_models_refuse_to_differ_by_layer(method, changes):
    with pytest.raises(EvoError, match=f"{method}: sees whole models.*layer_groups"):
        space_of(method, **changes)


@pytest.mark.parametrize("method", sorted(set(MERGES) - set(SEARCHED)))
def test_a_method_without_ranges_says_what_to_do(method):
    with pytest.raises(EvoError, match=f"{method}: no parameter has a range.*bounds"):
        space_of(method)


def test_whole_numbers_are_whole():
    whole = [(m, p.name) for m in SEARCHED.values() for p in m.parameters if p.integer and p.search]
    assert whole
    for method, name in whole:
        space = space_of(method.name)
        assert space.steps.any()
        for x in points(space, 4, 20):
            value = dict(space.decode(x).params)[name]
            assert all(n == int(n) for n in numbers_of(value))


def test_each_founder_layer_group_and_filter_has_its_own_weight():
    space = space_of("task_arithmetic", 2, layer_groups=2, filters=("self_attn", "mlp"))
    assert space.names[:6] == (
        "weight[f0] self_attn 1/2",
        "weight[f0] self_attn 2/2",
        "weight[f0] mlp 1/2",
        "weight[f0] mlp 2/2",
        "weight[f0] rest 1/2",
        "weight[f0] rest 2/2",
    )
    x = np.linspace(0.1, 1.2, 12)
    recipe = space.decode(x)
    assert isinstance(recipe, Linear)
    of = {r.name: c for r, c in recipe.terms}
    assert value_at(of["f0"], Q0, 4) == pytest.approx(x[0])
    assert value_at(of["f0"], Q3, 4) == pytest.approx(x[1])
    assert value_at(of["f0"], UP0, 4) == pytest.approx(x[2])
    assert value_at(of["f1"], EMBED, 4) == pytest.approx(x[10])
    for tensor in (Q0, Q3, UP0, EMBED):
        assert sum(value_at(c, tensor, 4) for c in of.values()) == pytest.approx(1.0)


def test_weights_that_are_not_normalised_hold_the_scale_and_may_be_negative():
    free = space_of("ties")
    assert {n.split("[")[0] for n in free.names} == {"weight", "density"}
    assert free.low[0] < 0.0
    assert dict(free.decode(free.low).params)["normalize"] is False
    normalised = space_of("ties", params={"normalize": True})
    assert {n.split("[")[0] for n in normalised.names} == {"weight", "density", "lambda"}
    assert normalised.low[0] == 0.0


def test_params_fix_what_is_not_searched_and_bounds_replace_ranges():
    space = space_of("ties", params={"density": 0.3}, bounds={"weight": (0.25, 0.5)})
    assert space.size == 3
    assert set(space.low) == {0.25}
    assert set(space.high) == {0.5}
    assert dict(space.decode(space.high).params)["density"] == (0.3, 0.3, 0.3)


def test_several_methods_share_the_parameters_that_all_have_and_a_gene_says_which():
    methods = ["task_arithmetic", "ties", "dare_ties"]
    space = gene_space(methods, GeneSettings(), start())
    assert space.names == ("weight[f0]", "weight[f1]", "weight[f2]", "(method)")
    x = space.encode({"weight": np.array([[0.2], [0.3], [0.4]])})
    x[-1] = 0.0
    made = {r.name: c for r, c in space.decode(x).terms}
    assert [made[f"f{i}"] for i in range(3)] == pytest.approx([0.2, 0.3, 0.4])
    for at, method in ((1.0, "ties"), (2.0, "dare_ties")):
        x[-1] = at
        assert space.decode(x).method == method
        assert dict(space.decode(x).params)["weight"] == pytest.approx((0.2, 0.3, 0.4))
    wider = gene_space(methods, GeneSettings(bounds={"density": (0.2, 0.9)}), start())
    assert [n.split("[")[0] for n in wider.names] == ["weight"] * 3 + ["density"] * 3 + ["(method)"]


def test_several_methods_that_share_nothing_are_refused():
    with pytest.raises(EvoError, match="task_arithmetic, sce: no parameter of all has a range"):
        gene_space(["task_arithmetic", "sce"], GeneSettings(), start())


def test_each_of_several_methods_keeps_to_its_own_range():
    space = gene_space(["task_arithmetic", "linear"], GeneSettings(), start())
    x = np.append(np.full(3, -0.4), 1.0)
    assert dict(space.decode(x).params)["weight"] == (0.0, 0.0, 0.0)
    x[-1] = 0.0
    assert [c for r, c in space.decode(x).terms if r != BASE] == pytest.approx([-0.4] * 3)


def test_methods_that_take_different_numbers_of_models_are_not_mixed():
    with pytest.raises(EvoError, match=r"same number of models.*ties 4, slerp 2"):
        gene_space(["ties", "slerp"], GeneSettings(), start(4))


def test_masks_are_common_to_all_candidates_unless_they_are_searched():
    one = space_of("dare_ties")
    assert {one.decode(x).seed for x in points(one, 6)} == {5}
    several = space_of("dare_ties", masks=4)
    assert several.names[-1] == "(mask)"
    assert several.steps[-1] == 1.0
    assert {several.decode(x).seed for x in points(several, 6, 60)} == {5, 6, 7, 8}


def test_a_start_keeps_its_weights_and_the_rest_is_within_the_range():
    space = space_of("della", bounds={"density": (0.4, 1.0), "epsilon": (0.0, 0.4)})
    x = space.encode({"weight": np.array([[0.2], [0.3], [0.4]])})
    params = dict(space.decode(x).params)
    assert params["weight"] == pytest.approx((0.2, 0.3, 0.4))
    assert MERGES["della"].parameter("density").default == 1.0  # an end: nothing to vary upwards
    assert params["density"] == pytest.approx((0.7, 0.7, 0.7))
    assert params["epsilon"] == pytest.approx((0.15, 0.15, 0.15))  # the default


def test_too_few_founders_are_refused_and_too_many_are_left_out():
    with pytest.raises(EvoError, match="slerp: takes 2 models or more, but there are 1"):
        gene_space(["slerp"], GeneSettings(), start(1))
    assert [f.name for f in gene_space(["slerp"], GeneSettings(), start(4)).founders] == [
        "f0",
        "f1",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bounds": {"density": (-0.5, 0.5)}}, "density must be finite and 0 or more, got -0.5"),
        ({"bounds": {"normalize": (0.0, 1.0)}}, "bounds.normalize: not a number"),
        ({"params": {"density": -2.0}}, "density must be finite and 0 or more"),
        ({"params": {"normalize": 3.0}}, "normalize must be true or false"),
    ],
)
def test_values_that_the_method_refuses_are_refused_at_once(changes, message):
    with pytest.raises(EvoError, match=message):
        space_of("ties", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bounds": {"weight": (1.0, 1.0)}}, r"bounds.weight must be \[low, high\]"),
        ({"bounds": {"weight": (0.0, 1.0)}, "params": {"weight": 1.0}}, "drop one"),
        ({"filters": ("mlp", "mlp.up_proj")}, "'mlp.up_proj' is never reached"),
        ({"layer_groups": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        GeneSettings(**changes)


def test_unknown_methods_and_parameters_are_named():
    with pytest.raises(ValueError, match="Did you mean 'ties'"):
        checked_methods(["tiess"], GeneSettings())
    with pytest.raises(ValueError, match=r"bounds\.densty: ties has no such parameter: weight"):
        checked_methods(["ties"], GeneSettings(bounds={"densty": (0.0, 1.0)}))
