"""Populations born in one pass: the same bits as each child alone, term by term, by whatever means."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import BASE, SHAPES, A, B, C, founders, same

from operators import native, sums
from operators.coefficients import Grouped, Rule
from operators.materialize import Materializer, MissingFounderError
from operators.merge import merge
from operators.recipe import Founder, Linear, Noise, Recipe, linear
from operators.sums import Sum, sum_up
from operators.weights import Layout, TensorSpec, Weights, allocate, layout_of

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
MERGED = merge("slerp", [A, B], params={"t": 0.3})
LEAVES: tuple[Recipe, ...] = (BASE, A, B, C, Noise(1), Noise(2, 0.3), Noise(3, rank=2), MERGED)
numbers = st.floats(-2.0, 2.0, allow_subnormal=False).map(lambda v: v or 0.5)
grouped = st.builds(
    lambda low, high, rest: Grouped((Rule(("mlp",), (low, high)), Rule((), (rest,)))),
    numbers,
    numbers,
    numbers,
)
children = st.dictionaries(st.sampled_from(LEAVES), numbers | grouped, min_size=1).map(linear)


def term_by_term(recipe: Recipe, given: dict[Founder, Weights], layout: Layout) -> Weights:
    """What DESIGN promises, with nothing shared and nothing in blocks: 0 + w·t + w·t + ..., then cast."""
    if not isinstance(recipe, Linear):
        return Materializer(layout, given).build(recipe)
    made = allocate(layout)
    terms = [(part, c, Materializer(given[BASE].layout, given)) for part, c in recipe.terms]
    wide = Layout(tuple(TensorSpec(s.name, s.shape, torch.float32) for s in layout))
    for spec in layout:
        total = torch.zeros(spec.shape)
        for part, coefficient, owner in terms:
            tensor = Materializer(wide, given).build(part)[spec.name]
            total = total + tensor * owner.value(coefficient, spec.name)
        made[spec.name].copy_(total)
    return made


@settings(max_examples=40, deadline=None)
@given(
    st.lists(children, min_size=1, max_size=6),
    st.sampled_from(DTYPES),
    st.sampled_from(DTYPES),
    st.integers(1, 3),
    st.sampled_from([5, 16, 1 << 20]),
)
def test_a_population_has_the_bits_of_its_children_one_by_one(
    population, stored, wanted, threads, span
):
    models = founders(stored)
    layout = Layout(tuple(TensorSpec(n, s, wanted) for n, s in sorted(SHAPES.items())))
    before = torch.get_num_threads(), sums.SPAN
    try:
        torch.set_num_threads(threads)
        sums.SPAN = span
        together = Materializer(layout, models).build_all(population)
    finally:
        torch.set_num_threads(before[0])
        sums.SPAN = before[1]
    for recipe, child in zip(population, together, strict=True):
        assert same(child, Materializer(layout, models).build(recipe))
        assert same(child, term_by_term(recipe, models, layout))


def vectors(elements: int, dtypes: list[torch.dtype], seed: int) -> list[torch.Tensor]:
    """Numbers of all sizes, subnormal ones and zeros of both signs among them."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for dtype in dtypes:
        sizes = 2.0 ** torch.randint(-149, 60, (elements,), generator=generator).double()
        values = torch.randn(elements, generator=generator, dtype=torch.float64) * sizes
        values[torch.rand(elements, generator=generator) < 0.2] = -0.0
        made.append(values.to(dtype))
    return made


@pytest.mark.skipif(native.library() is None, reason="no C compiler here")
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([torch.float32, torch.bfloat16]), min_size=1, max_size=5),
    st.lists(st.sampled_from([torch.float32, torch.bfloat16]), min_size=1, max_size=4),
    st.integers(1, 1200),
    st.integers(0, 2**20),
    st.data(),
)
def test_the_compiled_kernel_has_the_bits_of_torch(kinds, out_kinds, elements, seed, data):
    sources = vectors(elements, kinds, seed)
    weights = st.floats(-1e3, 1e3) | st.sampled_from([1e-40, -1e-45, 0.0, -0.0])
    term = st.tuples(st.integers(0, len(kinds) - 1), weights)
    terms = [tuple(data.draw(st.lists(term, max_size=6))) for _ in out_kinds]
    start = data.draw(st.integers(0, elements - 1))
    by_torch = [
        Sum(torch.zeros(elements, dtype=k), t) for k, t in zip(out_kinds, terms, strict=True)
    ]
    compiled = [torch.zeros(elements, dtype=k) for k in out_kinds]
    sums._by_torch(sources, by_torch, start, elements)
    kernel = native.library()
    assert kernel is not None
    assert native.weighted_sums(kernel, sources, compiled, terms, start, elements)
    for want, made in zip(by_torch, compiled, strict=True):
        bits = {torch.float32: torch.int32, torch.bfloat16: torch.int16}[made.dtype]
        assert torch.equal(want.out.view(bits), made.view(bits))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_that_are_not_finite_come_out_as_torch_has_them(dtype):
    elements = 1 << 17
    source = torch.ones(elements, dtype=dtype)
    source[5], source[70_000], source[-1] = float("inf"), float("nan"), -float("inf")
    made, want = torch.empty(elements, dtype=dtype), torch.empty(elements, dtype=dtype)
    sum_up([source, source], [Sum(made, ((0, 2.0), (1, -1.0)))], 0, elements)
    sums._by_torch([source, source], [Sum(want, ((0, 2.0), (1, -1.0)))], 0, elements)
    bits = {torch.float32: torch.int32, torch.bfloat16: torch.int16}[dtype]
    assert torch.equal(made.view(bits), want.view(bits))


def test_a_large_population_of_sums_merges_and_founders_is_born_in_one_pass():
    generator = torch.Generator().manual_seed(0)
    shapes = {"model.layers.0.mlp.w.weight": (300, 401), "model.norm.weight": (401,)}
    models = {
        f: Weights(
            layout := layout_of(
                t := {n: torch.randn(s, generator=generator).bfloat16() for n, s in shapes.items()}
            ),
            t,
        )
        for f in (BASE, A, B, C)
    }
    population = [
        A,
        linear({A: 0.3, B: 0.7}),
        linear({A: 0.3, C: -0.2, Noise(4): 0.01}),
        merge("ties", [A, linear({A: 0.5, B: 0.5})], base=BASE, params={"density": 0.4}),
        linear({MERGED: 0.5, B: 0.5}),
    ]
    outs = [allocate(layout) for _ in population]
    together = Materializer(layout, models).build_all(population, outs)
    assert all(a is b for a, b in zip(together, outs, strict=True))
    for recipe, child in zip(population, together, strict=True):
        assert same(child, Materializer(layout, models).build(recipe))
        assert same(child, term_by_term(recipe, models, layout))


def test_a_missing_founder_of_one_child_is_named_before_anything_is_built():
    models = founders()
    outs = [allocate(models[BASE].layout) for _ in range(2)]
    outs[0]["model.norm.weight"].fill_(7.0)
    with pytest.raises(MissingFounderError, match="founder 'd'"):
        Materializer(models[BASE].layout, models).build_all([A, Founder("d", "0")], outs)
    assert outs[0]["model.norm.weight"].tolist() == [7.0] * 4


def test_too_few_weights_for_a_population_are_refused():
    models = founders()
    with pytest.raises(ValueError, match="2 recipes, but weights for 1"):
        Materializer(models[BASE].layout, models).build_all([A, B], [allocate(models[BASE].layout)])


def test_without_a_compiler_the_bits_are_the_same():
    code = """
import hashlib, torch
from operators import native
from operators.sums import Sum, sum_up
g = torch.Generator().manual_seed(1)
s = [torch.randn(1 << 17, generator=g).bfloat16() for _ in range(3)]
out = torch.empty(1 << 17, dtype=torch.bfloat16)
sum_up(s, [Sum(out, ((0, 0.2), (1, 0.3), (2, -0.7)))], 0, 1 << 17)
print(native.library() is not None, hashlib.sha256(out.view(torch.uint8).numpy().tobytes()).hexdigest())
"""
    found = []
    for path in (os.environ["PATH"], ""):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PATH": path},
        )
        found.append(done.stdout.split())
    assert found[1][0] == "False"
    assert found[0][1] == found[1][1]
