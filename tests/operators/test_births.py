"""Populations born in one pass: the same bits as each child alone, term by term, by whatever means."""

import os
import subprocess
import sys
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import BASE, SHAPES, A, B, C, founders, same
from safetensors.torch import save_file

from cluster.founders.checkpoints import load_founders
from cluster.host.builder import Builder
from operators.build import materialize, sums
from operators.build.materialize import Materializer, MissingFounderError
from operators.build.sums import Sum, sum_up
from operators.merge import merge
from operators.recipe import Founder, Linear, Noise, Recipe, linear
from operators.recipe.coefficients import Grouped, Places, Rule, value_at
from operators.recipe.layers import layer_count
from operators.tensors.weights import Layout, TensorSpec, Weights, allocate, layout_of

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


@settings(max_examples=60, deadline=None)
@given(
    st.lists(children, min_size=1, max_size=6),
    st.sampled_from(DTYPES),
    st.sampled_from(DTYPES),
    st.integers(1, 3),
    st.sampled_from([5, 16, 1 << 20]),
    st.booleans(),
    st.booleans(),
)
def test_a_population_has_the_bits_of_its_children_one_by_one(
    population, stored, wanted, threads, span, small, compiled
):
    models = founders(stored)
    layout = Layout(tuple(TensorSpec(n, s, wanted) for n, s in sorted(SHAPES.items())))
    before = torch.get_num_threads()
    with (
        patch.object(sums, "SPAN", span),
        patch.object(sums, "COMPILED_FROM", 0 if compiled else 1 << 18),
        patch.object(materialize, "MOST_ELEMENTS", 1 << 20 if small else 0),
    ):
        torch.set_num_threads(threads)
        try:
            together = Materializer(layout, models).build_all(population)
        finally:
            torch.set_num_threads(before)
    for recipe, child in zip(population, together, strict=True):
        assert same(child, Materializer(layout, models).build(recipe))
        assert same(child, term_by_term(recipe, models, layout))


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view({4: torch.int32, 2: torch.int16}[tensor.itemsize])


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
    # Not at the start of a line, as files' tensors are.
    moved = data.draw(st.integers(0, 3))
    outs = [torch.zeros(elements + moved, dtype=k)[moved:] for k in out_kinds]
    by_torch = [
        Sum(torch.zeros(elements, dtype=k), t) for k, t in zip(out_kinds, terms, strict=True)
    ]
    compiled = [Sum(out, t) for out, t in zip(outs, terms, strict=True)]
    sums.sum_by_torch(sources, by_torch, start, elements)
    with patch.object(sums, "COMPILED_FROM", 0):
        assert sums.sum_by_kernel(sources, compiled, start, elements)
    for want, made in zip(by_torch, outs, strict=True):
        assert torch.equal(bits(want.out), bits(made))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_that_are_not_finite_come_out_as_torch_has_them(dtype):
    elements = sums.COMPILED_FROM
    source = torch.ones(elements, dtype=dtype)
    source[5], source[70_000], source[-1] = float("inf"), float("nan"), -float("inf")
    made, want = torch.empty(elements, dtype=dtype), torch.empty(elements, dtype=dtype)
    sum_up([source, source], [Sum(made, ((0, 2.0), (1, -1.0)))], 0, elements)
    sums.sum_by_torch([source, source], [Sum(want, ((0, 2.0), (1, -1.0)))], 0, elements)
    assert torch.equal(bits(made), bits(want))


@settings(deadline=None)
@given(grouped)
def test_a_coefficient_at_all_tensors_is_that_at_each(coefficient):
    names = sorted([*SHAPES, "lm_head.weight", *(f"h.{i}.mlp.w" for i in range(2, 7))])
    one_by_one = [value_at(coefficient, n, layer_count(names)) for n in names]
    assert Places(names).values(coefficient).tolist() == one_by_one
    assert Places(names).values(0.25).tolist() == [0.25] * len(names)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 400), st.integers(0, 2**20), st.sampled_from(DTYPES))
def test_what_is_sent_to_another_device_has_the_bits_of_what_stays(elements, seed, wanted):
    sources = vectors(elements, [torch.float32, torch.bfloat16, torch.float16], seed)
    start = elements // 3
    terms = (((0, 0.3), (1, -0.5), (2, 1.5)), ((2, 0.25),))
    stays = [Sum(torch.zeros(elements, dtype=wanted), t) for t in terms]
    sent = [Sum(torch.zeros(elements, dtype=wanted), t) for t in terms]
    sum_up(sources, stays, start, elements)
    sums.sum_streamed(sources, sent, start, elements)
    for a, b in zip(stays, sent, strict=True):
        assert torch.equal(a.out.nan_to_num(), b.out.nan_to_num())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_children_on_a_gpu_have_the_bits_of_those_in_host_memory():
    models = founders(torch.bfloat16)
    layout = models[BASE].layout
    population = [linear({A: 0.3, B: 0.7}), linear({A: 0.5, C: -0.2, Noise(4): 0.01}), MERGED]
    with patch.object(materialize, "MOST_ELEMENTS", 0):
        owner = Materializer(layout, models)
        away = owner.build_all(population, [allocate(layout, "cuda") for _ in population])
        here = owner.build_all(population)
    for a, b in zip(away, here, strict=True):
        assert all(torch.equal(a[n].cpu(), b[n]) for n in layout.names)


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


def test_a_builder_builds_a_population_as_it_builds_each(tmp_path):
    folders = {f.name: tmp_path / f.name for f in (BASE, A, B)}
    for founder, weights in founders(torch.bfloat16).items():
        if founder.name in folders:
            folders[founder.name].mkdir()
            save_file(dict(weights.tensors), folders[founder.name] / "model.safetensors")
    base = folders.pop("base")
    known = load_founders(base, folders)
    one, two = (f.founder for f in known.founders)
    population = [linear({one: w, two: 1.0 - w}) for w in (0.2, 0.7)]
    population.append(merge("slerp", [one, two]))
    builder = Builder(known.base, known.founders, dtype="float32")
    together = builder.build_all(population, [allocate(builder.buffer.layout) for _ in population])
    digests = [builder.digest(child) for child in together]
    assert digests == [builder.digest(builder.build(recipe)) for recipe in population]
    assert len(set(digests)) == len(digests)


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


def test_without_numba_the_bits_are_the_same():
    code = """
import hashlib, sys, torch
if sys.argv[1] == "without":
    sys.modules["numba"] = None
from operators.build import sums
g = torch.Generator().manual_seed(1)
n = sums.COMPILED_FROM
s = [torch.randn(n, generator=g).bfloat16() for _ in range(3)]
out = torch.empty(n, dtype=torch.bfloat16)
sums.sum_up(s, [sums.Sum(out, ((0, 0.2), (1, 0.3), (2, -0.7)))], 0, n)
print(repr(sums.kernel_problem()), hashlib.sha256(out.view(torch.uint8).numpy().tobytes()).hexdigest())
"""
    found = [
        subprocess.run(
            [sys.executable, "-c", code, how], capture_output=True, text=True, check=True
        )
        .stdout.strip()
        .rsplit(maxsplit=1)
        for how in ("with", "without")
    ]
    reasons = [reason for reason, _ in found]
    assert reasons == ["''", "'numba is not installed; weighted sums use torch'"]
    assert found[0][1] == found[1][1]


def test_where_numba_can_not_keep_what_it_compiles_torch_sums(tmp_path):
    code = """
import resource, torch
from operators.build import sums
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # as on a disk that is full
n = sums.COMPILED_FROM
out = torch.empty(n)
sums.sum_up([torch.ones(n)], [sums.Sum(out, ((0, 0.5),))], 0, n)
assert bool((out == 0.5).all())
print(sums.kernel_problem())
"""
    settings = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("numba can't compile the kernels (")


def test_a_small_model_is_built_without_numba():
    code = """
import sys
from models import A, B, built
from operators.recipe import linear
built(linear({A: 0.5, B: 0.5}))
from operators.build.sums import kernel_problem
assert kernel_problem() == ""
assert "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
