"""What must hold for every entry of MERGES, by one suite; what does not hold for one is listed here.

An entry that is added to the table is tested at once, with its defaults where no table below names it.
"""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import BASE, SHAPES, A, B, C, built, close, founders, same

from operators.build.materialize import Materializer
from operators.merge import MERGES, MergeMethod, Parameter, merge
from operators.recipe import Founder, Recipe, linear
from operators.tensors.weights import Weights, weights_of

ALL = (A, B, C)

# Parameters for which n equal models give the model, whatever the base is.
NEUTRAL: dict[str, Any] = {
    "breadcrumbs": lambda n: {"normalize": True},
    "breadcrumbs_ties": lambda n: {"normalize": True},
    "dare_linear": lambda n: {"normalize": True, "density": 1.0},
    "dare_ties": lambda n: {"normalize": True, "density": 1.0},
    "della_linear": lambda n: {"normalize": True},
    "evo_lora": lambda n: {"beta": 1.0 / n},
    "exclusive": lambda n: {"keep": 1.0},
    "lora_concat": lambda n: {"weight": 1.0 / n},
    "nearswap": lambda n: {"t": 1e9},
    "ram": lambda n: {"epsilon": 0.0},
    "ramplus_tl": lambda n: {"epsilon": 0.0},
    "task_arithmetic": lambda n: {"normalize": True},
    "ties": lambda n: {"density": 1.0},
    "widen": lambda n: {"t": 1.0 / n},
}
# The switches of a method that change how it gets there, and not what it gives for equal models.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "model_stock": [{"filter_wise": True}],
    "nuslerp": [{"nuslerp_flatten": False}, {"nuslerp_flatten": False, "nuslerp_row_wise": True}],
}
ADAPTERS_ONLY = {"evo_lora_published": "refuses whole models: its result depends on the factors"}
NOT_ITSELF = {
    "arcee_fusion": "takes only the most important elements of a model",
    "bitdelta": "keeps signs and sizes, not the task vector itself",
    "pcb": "gives the smallest entry of a task vector back to the base",
}
BASELESS = {m.name: "has no base" for m in MERGES.values() if m.base == "none"}
NOT_SYMMETRIC = {
    "slerp": "t runs from the first model to the second",
    "exclusive": "models of equal priority take turns in their order",
}
NOT_HOMOGENEOUS = {
    "nearswap": "t is a distance",
    "arcee_fusion": "importance compares softmaxes",
    "widen": "the importance of a vector's entries is a softmax of |δ|",
}
# Random methods draw by the place in the list, so they are compared where they drop nothing.
DRAWN = {m.name: {"density": 1.0} for m in MERGES.values() if m.seeded}
# Lengths, and the form of pcb that compares task vectors with 1, don't scale.
SCALE_FREE = {
    "multislerp": {"eps": 0.0},
    "pcb": {"inter": "pair"},
    "ram": {"epsilon": 0.0},
    "ramplus_tl": {"epsilon": 0.0},
}


def every(*exceptions: Mapping[str, str]) -> pytest.MarkDecorator:
    why = {k: v for table in (ADAPTERS_ONLY, *exceptions) for k, v in table.items()}
    params = [
        pytest.param(m, id=n, marks=[pytest.mark.skip(reason=why[n])] if n in why else [])
        for n, m in MERGES.items()
    ]
    return pytest.mark.parametrize("method", params)


def many(method: MergeMethod, most: int = 3) -> int:
    """As many inputs as the method takes, up to ``most``."""
    return most if method.inputs[1] is None else min(most, method.inputs[1])


def made(method: MergeMethod, inputs: list[Founder], seed: int = 1, **params: Any) -> Recipe:
    return merge(method.name, inputs, base=BASE, params=params, seed=seed)


def parameters(method: MergeMethod, inputs: int, *, ends: bool = False) -> st.SearchStrategy[Any]:
    """Values from the range that a search explores; with ``ends``, the ends of the valid range and 0 too."""

    def number(parameter: Parameter) -> st.SearchStrategy[float]:
        bounds = [b for b in parameter.valid or () if math.isfinite(b)]
        near = (0.0, 2.0 * float(parameter.default) or 1.0)
        low, high = parameter.search or (bounds if len(bounds) == 2 else near)
        if ends:
            zero = [0.0] if not parameter.valid or parameter.valid[0] <= 0.0 else []
            return st.sampled_from([low, high, float(parameter.default), *bounds, *zero])
        if parameter.integer:
            return st.integers(int(low), int(high)).map(float)
        return st.integers(1, 20).map(lambda k: low + (high - low) * k / 20)

    def value(parameter: Parameter) -> st.SearchStrategy[Any]:
        if parameter.choices:
            return st.sampled_from(parameter.choices)
        if isinstance(parameter.default, bool):
            return st.booleans()
        one = number(parameter)
        return st.tuples(*[one] * inputs) if parameter.per_input else one

    return st.fixed_dictionaries({p.name: value(p) for p in method.parameters})


@every(NOT_ITSELF)
@pytest.mark.parametrize("one", [False, True], ids=["many", "one"])
def test_a_model_merged_with_itself_is_itself(method, one):
    inputs = [A] * (1 if one else many(method))
    if len(inputs) < method.inputs[0]:
        pytest.skip(f"takes {method.inputs[0]} models or more")
    neutral = NEUTRAL.get(method.name, lambda n: {})(len(inputs))
    for variant in [{}, *VARIANTS.get(method.name, [])]:
        assert close(built(made(method, inputs, **neutral, **variant)), founders()[A])


@every(BASELESS)
@settings(max_examples=10, deadline=None)
@given(st.data())
def test_models_equal_to_the_base_give_the_base(method, data):
    params = data.draw(parameters(method, many(method)))
    assert close(built(made(method, [BASE] * many(method), **params)), founders()[BASE])


@every(NOT_SYMMETRIC)
@settings(max_examples=10, deadline=None)
@given(st.data())
def test_order_of_inputs_does_not_matter(method, data):
    count = many(method)
    params = data.draw(parameters(method, count)) | DRAWN.get(method.name, {})
    order = data.draw(st.permutations(range(count)))
    moved = {
        k: tuple(v[i] for i in order) if isinstance(v, tuple) else v for k, v in params.items()
    }
    forward = made(method, list(ALL[:count]), **params)
    backward = made(method, [ALL[i] for i in order], **moved)
    assert close(built(forward), built(backward), atol=1e-5)


@every(NOT_HOMOGENEOUS)
@settings(max_examples=8, deadline=None)
@given(st.data(), st.sampled_from([0.25, 8.0]))
def test_models_times_c_give_the_merge_times_c(method, data, c):
    count = many(method)
    params = data.draw(parameters(method, count)) | SCALE_FREE.get(method.name, {})
    recipe = made(method, list(ALL[:count]), **params)
    scaled = {f: weights_of({n: c * w[n] for n in SHAPES}) for f, w in founders().items()}
    plain = built(recipe)
    assert close(built(recipe, scaled), weights_of({n: c * plain[n] for n in SHAPES}), atol=1e-5)


@every()
def test_merging_is_reproducible_and_leaves_the_founders_alone(method):
    given_founders = founders()
    before = {f: {n: t.clone() for n, t in w.tensors.items()} for f, w in given_founders.items()}
    recipe = made(method, list(ALL[: many(method)]))
    materializer = Materializer(given_founders[BASE].layout, given_founders)
    first = {n: t.clone() for n, t in materializer.build(recipe).tensors.items()}
    materializer.build(linear({C: 2.0}))
    assert same(materializer.build(recipe), weights_of(first))
    for founder, tensors in before.items():
        assert all(torch.equal(given_founders[founder][n], t) for n, t in tensors.items())


@every()
def test_bfloat16_in_bfloat16_out_with_float32_inside(method):
    low = founders(torch.bfloat16)
    high = {f: weights_of({n: t.float() for n, t in w.tensors.items()}) for f, w in low.items()}
    recipe = made(method, list(ALL[: many(method)]))
    got, exact = built(recipe, low), built(recipe, high)
    for name in SHAPES:
        assert got[name].dtype == torch.bfloat16
        assert torch.equal(got[name], exact[name].bfloat16())  # rounded once, at the end


# Shapes that methods may trip over: one element, no axis, three axes, a row, a column.
ODD = {
    "model.embed_tokens.weight": (5, 3),
    "model.layers.0.conv.weight": (2, 3, 4),
    "model.layers.0.gate": (1,),
    "model.layers.0.row.weight": (1, 6),
    "model.layers.0.column.weight": (6, 1),
    "model.layers.0.norm.weight": (4,),
    "model.temperature": (),
}


def _odd(kind: str, which: int) -> Weights:
    """Model ``which`` of a kind, 0 the base."""
    generator = torch.Generator().manual_seed(which)

    def tensor(shape: tuple[int, ...]) -> torch.Tensor:
        noise = torch.randn(shape, generator=generator)
        match kind:
            case "zeros":
                return torch.zeros(shape)
            case "constant":
                return torch.full(shape, -2.5)
            case "constants":
                return torch.full(shape, float(which))
            case "ties in magnitude":
                return noise.sign() * (which > 0)
            case "opposite":
                return torch.ones(shape) * (0, 1, -1, 1)[which]
            case "only one differs":
                return torch.ones(shape) + noise * (which == 2)
            case "tiny":
                return noise * 1e-30
            case "far apart":
                return noise * 10.0 ** (6 * which - 6)
        return noise

    return weights_of({n: tensor(s) for n, s in ODD.items()})


KINDS = (
    "zeros",
    "constant",
    "constants",
    "ties in magnitude",
    "opposite",
    "only one differs",
    "tiny",
    "far apart",
    "plain",
)


@every()
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6, deadline=None)
@given(st.data())
def test_no_nan_and_no_infinity_from_odd_tensors_or_parameters(method, kind, data):
    count = data.draw(st.integers(method.inputs[0], many(method)))
    params = data.draw(parameters(method, count, ends=True))
    models = {f: _odd(kind, i) for i, f in enumerate((BASE, *ALL))}
    recipe = made(method, list(ALL[:count]), **params)
    for name, tensor in built(recipe, models).tensors.items():
        assert bool(torch.isfinite(tensor).all()), name
        assert tensor.shape == ODD[name]


@every()
def test_weights_of_zero_give_something_finite(method):
    weighted = {p.name: 0.0 for p in method.parameters if p.name in ("weight", "beta")}
    for variant in [{}, *VARIANTS.get(method.name, [])]:
        got = built(made(method, list(ALL[: many(method)]), **weighted, **variant))
        assert all(bool(torch.isfinite(t).all()) for t in got.tensors.values())


@pytest.mark.parametrize("method", MERGES.values(), ids=list(MERGES))
def test_table_entries_state_their_source_and_sane_parameters(method):
    assert method.source
    assert len({p.name for p in method.parameters}) == len(method.parameters)
    for parameter in method.parameters:
        if isinstance(parameter.default, str):
            assert parameter.default in parameter.choices
        low, high = parameter.valid or (-math.inf, math.inf)
        if isinstance(parameter.default, float):
            assert low <= parameter.default <= high
        if parameter.search:
            assert low <= parameter.search[0] < parameter.search[1] <= high
