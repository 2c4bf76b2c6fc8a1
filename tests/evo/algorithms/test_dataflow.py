"""Genes of data-flow paths, and the searches over them, on a fitness that is known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evo.algorithms import Scored, Start, make, read_settings
from evo.algorithms.scales import gene_count, scales_of
from evo.algorithms.sequence import Stages
from evo.errors import EvoError
from operators.recipe import Founder, Linear, Recipe, Route
from operators.variation.paths import (
    MOVES,
    SCALES,
    Choices,
    Gene,
    PathGenes,
    Slots,
    bounded,
    cross,
    decode,
    fitted,
    move,
    own_path,
)

BASE = Founder("base", "0")
MODELS = tuple(Founder(n, "0") for n in "abc")
LAYERS = 4
START = Start(MODELS, BASE, 0, LAYERS, evaluations=200)
WANTED = ("a0", "b1", "c2", "a3")  # the layers that the toy fitness asks for, place by place
NAMES = ["dataflow", "path_ga", "joint"]


def genes(*steps: tuple[int, int]) -> PathGenes:
    return PathGenes(0, tuple(Gene(m, k) for m, k in steps), 0)


def fitness(recipe: Recipe) -> float:
    """The share of places that hold the wanted layer, less a little for every step too many."""
    match recipe:
        case Founder(name):
            steps = [f"{name}{k}" for k in range(LAYERS)]
        case Route():
            steps = [getattr(s.recipe, "name", "merged") + str(s.layer) for s in recipe.steps]
        case _:
            steps = [f"merged{k}" for k in range(LAYERS)]
    hits = sum(a == b for a, b in zip(steps, WANTED, strict=False))
    return (hits - 0.1 * abs(len(steps) - LAYERS)) / LAYERS


def run(settings: dict[str, object], start: Start = START, rounds: int = 40, fitness=fitness):
    """All candidates asked, and the algorithm at its end."""
    algorithm = make(read_settings(settings), start)
    asked = []
    for _ in range(rounds):
        candidates = algorithm.ask()
        asked += candidates
        algorithm.tell([Scored(c, fitness(c.recipe)) for c in candidates])
    return asked, algorithm


def best(asked) -> float:
    return max(fitness(c.recipe) for c in asked)


def test_a_models_own_path_decodes_to_the_model_itself():
    assert decode(own_path(1, LAYERS), MODELS, LAYERS) == MODELS[1]
    assert isinstance(decode(genes((1, 0), (1, 1)), MODELS, LAYERS), Route)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_slots_hold_every_layer_once_a_repetition_and_a_models_own_path(
    models, layers, repeats, spread
):
    slots = Slots(models, layers, repeats)
    found = [(slots.gene(i).model, slots.gene(i).layer) for i in range(slots.count)]
    assert found == [(m, k) for m in range(models) for k in range(layers)] * repeats
    for model in range(models):
        taken = slots.own(model, spread=spread)
        steps = slots.steps(taken, [1.0] * layers)
        assert PathGenes(model, steps, model) == own_path(model, layers)


steps_lists = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=8)


@given(steps_lists, st.sampled_from(sorted(MOVES)), st.integers(0, 2**32))
def test_moves_keep_to_the_limits_and_change_the_path_or_say_nothing(steps, name, seed):
    choices = Choices(3, LAYERS, 2, 8)
    before = genes(*steps)
    after, said = move(before, [name], choices, np.random.default_rng(seed))
    assert (after == before) == (said == "")
    if said:
        assert choices.shortest <= len(after.steps) <= choices.longest
    assert all(0 <= g.model < 3 and 0 <= g.layer < LAYERS for g in after.steps)


@given(steps_lists, steps_lists, st.integers(0, 2**32))
def test_children_of_two_paths_begin_as_one_and_end_as_the_other(a, b, seed):
    choices = Choices(3, LAYERS, 1, 8)
    child = cross(genes(*a), genes(*b), choices, np.random.default_rng(seed))
    steps = [(g.model, g.layer) for g in child.steps]
    assert 1 <= len(steps) <= 8
    apart = 0.5 / len(a) + 0.5 / len(b)  # as far as rounding takes the two cuts
    assert any(
        steps == (a[:i] + b[j:])[:8]
        for i in range(len(a) + 1)
        for j in range(len(b) + 1)
        if abs(i / len(a) - j / len(b)) <= apart + 1e-9
    )


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("stack", [(0, 0), (0, 1)], [(0, 0), (0, 1), (0, 0), (0, 1)]),
        ("swap", [(0, 0), (0, 1)], [(0, 1), (0, 0)]),
        ("share", [(0, 0), (0, 1)], [(0, 0), (0, 0)]),
    ],
)
def test_moves_do_what_they_are_called(name, before, after):
    moved = MOVES[name](genes(*before).steps, Choices(1, 2, 1, 9), np.random.default_rng(0))
    assert [(g.model, g.layer) for g in moved] == after


def test_a_layer_of_little_influence_is_dropped_first():
    influence = np.full((1, 8), 0.9)
    influence[0, 5] = 0.0
    choices = Choices(1, 8, 1, 8, influence)
    path = own_path(0, 8)
    rng = np.random.default_rng(0)
    lost = []
    for _ in range(200):
        left = {g.layer for g in MOVES["drop"](path.steps, choices, rng)}
        lost += list(set(range(8)) - left)
    assert lost.count(5) > 80  # evenly it would be 25


@pytest.mark.parametrize("form", ["none", "step", "matrix", "network"])
def test_scale_genes_of_zero_are_scales_of_one(form):
    slots = Slots(2, 3, 2)
    zero = np.zeros(gene_count(form, slots))
    assert scales_of(form, zero, [0, 4, 7], slots) == [1.0, 1.0, 1.0]


def test_a_matrix_scale_belongs_to_the_pair_of_layers_not_to_the_layer():
    slots = Slots(2, 2, 2)
    table = np.zeros((slots.block + 1, slots.block))
    table[1 + 0, 3] = np.log(2.0)  # from layer 0 of the first model to layer 1 of the second
    taken = [0, 3, 4 + 2, 4 + 3]
    assert scales_of("matrix", table.reshape(-1), taken, slots) == pytest.approx([1, 2, 1, 1])


@pytest.mark.parametrize("name", NAMES)
def test_a_search_finds_the_path_that_is_wanted(name):
    asked, _ = run({"name": name} | ({"weights_rate": 0.2} if name == "joint" else {}), rounds=80)
    assert best(asked) >= 0.75 > max(fitness(m) for m in MODELS)


@pytest.mark.parametrize(
    ("search", "scales"),
    [
        *((search, form) for search in ("structured", "random") for form in ("none", "step")),
        *(("flat", form) for form in ("none", "step", "matrix", "network")),
    ],
)
def test_every_kind_of_dataflow_keeps_its_limits(search, scales):
    settings = {"name": "dataflow", "search": search, "scales": scales, "max_length": 5}
    asked, algorithm = run(settings, rounds=12)
    routes = [c.recipe for c in asked if isinstance(c.recipe, Route)]
    assert routes
    assert all(1 <= len(r.steps) <= 5 for r in routes)
    assert algorithm.generation == 11


@pytest.mark.parametrize("settings", [*({"name": n} for n in NAMES), {"name": "sequence"}])
def test_the_same_seed_asks_the_same(settings):
    first, _ = run(settings, rounds=15)
    again, _ = run(settings, rounds=15)
    assert [c.id for c in first] == [c.id for c in again]
    other = Start(MODELS, BASE, 1, LAYERS, evaluations=200)
    assert [c.id for c in first] != [c.id for c in run(settings, other, rounds=15)[0]]


@pytest.mark.parametrize("name", NAMES)
def test_failed_candidates_do_not_stop_a_search(name):
    algorithm = make(read_settings({"name": name}), START)
    for round_ in range(8):
        asked = algorithm.ask()
        told = [
            float("nan") if round_ and i % 2 else fitness(c.recipe) for i, c in enumerate(asked)
        ]
        algorithm.tell([Scored(c, f) for c, f in zip(asked, told, strict=True)])
    assert np.isfinite(algorithm.population[0].fitness)


def test_random_paths_do_not_learn():
    asked, _ = run({"name": "dataflow", "search": "random"}, rounds=6)
    assert all(c.parents == () for c in asked)


def test_joint_individuals_carry_weights_and_paths():
    asked, _ = run({"name": "joint"}, rounds=30)
    merged = [c.recipe for c in asked if isinstance(c.recipe, Linear)]
    routes = [c.recipe for c in asked if isinstance(c.recipe, Route)]
    assert merged
    assert any(isinstance(s.recipe, Linear) for r in routes for s in r.steps)


def test_a_sequence_gives_its_winner_to_the_next_stage():
    algorithm = make(read_settings({"name": "sequence", "evaluations": [40]}), START)
    merged: dict[Recipe, float] = {}
    used: set[Recipe] = set()
    for _ in range(30):
        asked = algorithm.ask()
        for candidate in asked:
            if isinstance(candidate.recipe, Linear):
                merged.setdefault(candidate.recipe, 1.0 + len(merged))  # each better than the last
            if isinstance(candidate.recipe, Route):
                used |= {step.recipe for step in candidate.recipe.steps}
        told = [merged.get(c.recipe, fitness(c.recipe)) for c in asked]
        algorithm.tell([Scored(c, f) for c, f in zip(asked, told, strict=True)])
    winner = max(merged, key=lambda m: merged[m])
    assert winner in used
    assert len(merged) < 60  # the first stage ended


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "dataflow", "models": ["a", "x"]}, "no founder is called 'x'; there are a, b, c"),
        ({"name": "path_ga", "min_length": 9}, "max_length: 8 is less than min_length, 9"),
        (
            {"name": "dataflow", "min_length": 13, "max_length": 20, "repeats": 1},
            "min_length: 13 is more than the 12 layers of 3 models, 1 times over; raise repeats",
        ),
        (
            {"name": "sequence", "stages": ["dataflow", {"name": "path_ga", "models": ["x"]}]},
            r"stages\[1\], path_ga: algorithm.models: no founder is called 'x'",
        ),
        (
            {
                "name": "sequence",
                "stages": [
                    "genome",
                    {"name": "genome", "genes": "coefficients", "layer_groups": 99},
                ],
            },
            r"stages\[1\], genome: algorithm.layer_groups: 99 groups",
        ),
        (
            {"name": "sequence", "stages": ["genome"] * 3, "evaluations": [150, 50]},
            "evaluations: 200 for all stages but the last leave it nothing of budget.evaluations, 200",
        ),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(EvoError, match=message):
        make(read_settings(settings), START)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "path_ga", "moves": ["fly"]}, "moves must be some of drop, repeat"),
        ({"name": "sequence", "stages": ["genome"]}, "at least 2 items"),
        ({"name": "sequence", "evaluations": [5, 5]}, "2 numbers for 2 stages"),
        ({"name": "sequence", "stages": ["sequence", "genome"]}, "can't be a stage"),
        ({"name": "path_ga", "models": ["a", "a"]}, "listed twice: a, a"),
        ({"name": "dataflow", "scales": "matrix"}, "scales: matrix needs search: flat"),
        (
            {"name": "dataflow", "search": "random", "scales": "network"},
            "scales: network needs search: flat",
        ),
        (
            {"name": "dataflow", "search": "flat", "turns": [6, 2]},
            "turns needs search: structured; search: flat takes none",
        ),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValidationError, match=message):
        read_settings(settings)


def test_models_without_layers_are_refused():
    with pytest.raises(EvoError, match="no layers that can be told apart"):
        make(read_settings({"name": "dataflow"}), Start(MODELS, BASE, 0))


def steps_of(recipe: Recipe) -> int:
    return len(recipe.steps) if isinstance(recipe, Route) else LAYERS


def test_searches_go_on_from_what_they_found_and_the_random_one_does_not():
    longest = {}
    for search in ("structured", "flat", "random"):
        settings = {"name": "dataflow", "search": search, "scales": "none", "max_length": 20}
        asked, _ = run(settings, rounds=40, fitness=steps_of)
        longest[search] = max(steps_of(c.recipe) for c in asked)
    assert longest["structured"] == longest["flat"] == 20
    assert longest["random"] < 12


UP_AND_DOWN = np.log([4.0, 0.25, 4.0, 0.25])


def scales_wanted(recipe: Recipe) -> float:
    """How near the scales of a path of four steps are to ones that σ₀ = 1/6 never draws at once."""
    if not isinstance(recipe, Route) or len(recipe.steps) != LAYERS:
        return -10.0
    return -float(np.sum((np.log([s.scale for s in recipe.steps]) - UP_AND_DOWN) ** 2))


@pytest.mark.parametrize("more", [{"turns": [1, 60]}, {"search": "flat", "repeats": 1}])
def test_scales_go_to_where_fitness_is(more):
    asked, _ = run({"name": "dataflow"} | more, rounds=120, fitness=scales_wanted)
    assert max(scales_wanted(c.recipe) for c in asked) > -0.2


def test_flips_keep_the_scales_that_were_found():
    asked, _ = run({"name": "dataflow"}, rounds=20, fitness=scales_wanted)
    flips = [c.recipe for c in asked if c.operator == "flip" and isinstance(c.recipe, Route)]
    assert all(s.scale == 1.0 for s in flips[0].steps)
    assert all(any(s.scale != 1.0 for s in r.steps) for r in flips[-5:])


def test_random_paths_have_random_scales_unless_there_are_none():
    for form, drawn in (("step", True), ("none", False)):
        asked, _ = run({"name": "dataflow", "search": "random", "scales": form}, rounds=4)
        routes = [c.recipe for c in asked if isinstance(c.recipe, Route)]
        scales = np.log([s.scale for r in routes for s in r.steps])
        assert (np.std(scales) > 0.1) == drawn
        assert len({tuple((s.recipe, s.layer) for s in r.steps) for r in routes}) > 20


@pytest.mark.parametrize("search", ["structured", "flat", "random"])
def test_population_is_what_every_generation_of_dataflow_asks(search):
    algorithm = make(read_settings({"name": "dataflow", "search": search, "population": 7}), START)
    sizes = []
    for _ in range(10):
        asked = algorithm.ask()
        sizes.append(len(asked))
        algorithm.tell([Scored(c, fitness(c.recipe)) for c in asked])
    assert sizes == [3] + [7] * 9


scale_lists = st.lists(st.floats(0.05, 20.0), min_size=1, max_size=30)


@given(scale_lists)
def test_the_stream_is_never_scaled_out_of_bounds(scales):
    steps = bounded([Gene(0, 0, s) for s in scales])
    products = np.cumprod([g.scale for g in steps])
    assert np.all((products > SCALES[0] * 0.999) & (products < SCALES[1] * 1.001))
    inside = np.cumprod(scales)
    if np.all((inside >= SCALES[0]) & (inside <= SCALES[1])):
        assert [g.scale for g in steps] == scales


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "dataflow", "sigma0": 5.0},
        {"name": "dataflow", "sigma0": 5.0, "search": "flat"},
        {"name": "dataflow", "sigma0": 5.0, "search": "random"},
        {"name": "path_ga", "moves": ["rescale"]},
    ],
)
def test_no_search_leaves_the_bounds_of_scales(settings):
    def loud(recipe: Recipe) -> float:
        return float(sum(s.scale for s in recipe.steps)) if isinstance(recipe, Route) else 0.0

    asked, _ = run(settings, rounds=60, fitness=loud)
    products = [
        np.cumprod([s.scale for s in c.recipe.steps]) for c in asked if isinstance(c.recipe, Route)
    ]
    assert max(float(p.max()) for p in products) > 5.0  # it was tried
    assert all(np.all((p > 0.0999) & (p < 10.001)) for p in products)


@given(steps_lists, st.integers(1, 20), st.integers(0, 20))
def test_a_path_is_cut_or_begun_again_to_fit(steps, shortest, more):
    path = fitted(genes(*steps), shortest, shortest + more)
    found = [(g.model, g.layer) for g in path.steps]
    assert shortest <= len(found) <= shortest + more
    assert found == [steps[i % len(steps)] for i in range(len(found))]
    if shortest <= len(steps) <= shortest + more:
        assert found == steps


@given(st.integers(0, 2), st.booleans(), st.integers(1, 24), st.integers(0, 24))
def test_an_indicator_is_made_to_fit(model, spread, shortest, more):
    slots = Slots(3, LAYERS, 2)
    own = slots.own(model, spread=spread)
    found = slots.fitted(own, model, shortest, shortest + more)
    assert shortest <= found.sum() <= shortest + more
    assert np.all(found[own]) or not np.any(found & ~own)
    if shortest <= 2 * LAYERS:  # there are enough of the model's own
        assert {slots.gene(int(s)).model for s in np.flatnonzero(found)} == {model}
    if shortest <= LAYERS <= shortest + more:
        assert np.array_equal(found, own)


@pytest.mark.parametrize("limits", [(7, 9), (1, 2), (3, 3)])
@pytest.mark.parametrize(
    "settings",
    [
        *({"name": "dataflow", "search": s} for s in ("structured", "flat", "random")),
        {"name": "path_ga"},
        {"name": "joint"},
    ],
)
def test_no_path_is_outside_the_limits_even_where_the_founders_are(settings, limits):
    shortest, longest = limits
    limited = settings | {"min_length": shortest, "max_length": longest}

    def a_path_is_worse(recipe: Recipe) -> float:
        return fitness(recipe) - 10.0 * (steps_of(recipe) != LAYERS)

    late, first = [], []
    for seed in range(3):  # one seed may draw the best paths that it ever finds at once
        asked, _ = run(limited, replace(START, seed=seed), rounds=25, fitness=a_path_is_worse)
        tried = {c.recipe for c in asked} - set(MODELS)
        assert len(tried) > 30
        assert all(shortest <= steps_of(recipe) <= longest for recipe in tried)
        late += [c.recipe for c in asked[len(asked) // 2 :]]
        first += [c.recipe for c in asked if c.recipe in tried][:5]
    if settings.get("search") != "random":
        assert max(map(fitness, late)) > min(map(fitness, first))


def test_a_founder_that_is_no_path_of_the_search_is_no_hurdle_for_one():
    def founders_win(recipe: Recipe) -> float:
        return float(steps_of(recipe)) if isinstance(recipe, Route) else 100.0

    settings = {"name": "dataflow", "scales": "none", "min_length": 7, "max_length": 20}
    asked, _ = run(settings, fitness=founders_win)
    assert max(steps_of(c.recipe) for c in asked) == 20


def first_dropped(influence: dict[str, tuple[float, ...]], seed: int) -> int:
    """The layer that the first child of a search that only drops layers is without."""
    start = Start((MODELS[0],), BASE, seed, 8, influence=influence)
    settings = {"name": "path_ga", "moves": ["drop"], "children": 1}
    asked, _ = run(settings, start, rounds=2, fitness=steps_of)
    (left,) = [{s.layer for s in c.recipe.steps} for c in asked if isinstance(c.recipe, Route)]
    (lost,) = set(range(8)) - left
    return lost


def test_measured_influence_decides_what_a_search_drops():
    measured = (0.9, 0.9, 0.9, 0.9, 0.9, 0.0, 0.9, 0.9)
    lost = [first_dropped({MODELS[0].id: measured}, seed) for seed in range(60)]
    assert lost.count(5) > 20  # evenly it would be 7 or 8


def test_a_layer_whose_influence_is_no_number_is_one_of_much():
    measured = {MODELS[0].id: (0.0, 0.0, float("nan"), 0.0)}
    start = Start((MODELS[0],), BASE, 0, LAYERS, influence=measured)
    asked, _ = run({"name": "path_ga", "moves": ["insert"]}, start, rounds=2, fitness=steps_of)
    routes = [c.recipe for c in asked if isinstance(c.recipe, Route)]
    inserted = [k for r in routes for k in range(LAYERS) if [s.layer for s in r.steps].count(k) > 1]
    assert inserted.count(2) > len(routes) / 2 > 0


def test_children_of_joint_parents_have_weights_of_both():
    settings = {"name": "joint", "crossover_rate": 1.0, "weights_rate": 0.0}
    asked, _ = run(settings, rounds=3)
    mixed = [
        step.recipe
        for c in asked
        if isinstance(c.recipe, Route) and len(c.parents) == 2
        for step in c.recipe.steps
        if isinstance(step.recipe, Linear)
    ]
    assert mixed
    assert all(0.0 < w < 1.0 for m in mixed for _, w in m.terms)
    assert all(sum(w for _, w in m.terms) == pytest.approx(1.0) for m in mixed)


def test_operators_are_named_after_what_happened():
    # Nothing is shorter than one step: no move leads anywhere.
    settings = {"name": "path_ga", "moves": ["drop"], "crossover_rate": 1.0, "min_length": 4}
    asked, _ = run(settings, rounds=5)
    assert "crossover" in {c.operator for c in asked}
    assert not any(c.operator.startswith("+") or c.operator.endswith("+") for c in asked)


def a_path_wins(recipe: Recipe) -> float:
    """Merged models are better than founders, the more so the more they have of the first."""
    match recipe:
        case Route():
            return 10.0 + fitness(recipe)
        case Linear(terms):
            return 5.0 + dict(terms).get(MODELS[0], 0.0)
    return fitness(recipe)


@pytest.mark.parametrize(
    "stages",
    [
        ["dataflow", "dataflow"],
        ["dataflow", "genome"],
        ["dataflow", "recipe_search"],
        ["recipe_search", "path_ga", "joint"],
    ],
    ids="-".join,
)
def test_a_stage_after_paths_starts_from_the_best_that_is_no_path(stages):
    settings = {"name": "sequence", "stages": stages, "evaluations": [20] * (len(stages) - 1)}
    begun: list[Start] = []

    def noted(stage, start: Start):
        begun.append(start)
        return make(stage, start)

    algorithm = Stages(read_settings(settings), START, noted)
    asked = []
    for _ in range(25):
        candidates = algorithm.ask()
        asked += [c.recipe for c in candidates]
        algorithm.tell([Scored(c, a_path_wins(c.recipe)) for c in candidates])
    assert isinstance(max(asked, key=a_path_wins), Route)
    assert len(begun) == 2 * len(stages) - 1  # each at the start, and those after the first again
    handed_on = set(begun[-1].founders) - set(MODELS)
    assert not any(isinstance(recipe, Route) for recipe in handed_on)
    if stages[0] == "recipe_search":
        merged = [recipe for recipe in asked if isinstance(recipe, Linear)]
        before = merged[
            : merged.index(*handed_on) + 1
        ]  # of the first stage: path_ga merges nothing
        assert a_path_wins(*handed_on) == max(map(a_path_wins, before)) > 5.0
        assert len(before) > 10


def test_no_stage_of_another_seed_draws_the_same():
    seeds = []
    for seed in range(3):
        begun: list[Start] = []

        def noted(stage, start: Start, begun=begun):
            begun.append(start)
            return make(stage, start)

        settings = {"name": "sequence", "stages": ["random_search"] * 3, "evaluations": [1, 1]}
        algorithm = Stages(read_settings(settings), replace(START, seed=seed), noted)
        for _ in range(6):
            asked = algorithm.ask()
            algorithm.tell([Scored(c, 0.0) for c in asked])
        seeds += [begun[0].seed, *(s.seed for s in begun[3:])]
    assert len(set(seeds)) == len(seeds) == 9


def test_a_stage_that_has_tried_everything_gives_way():
    everything = {"name": "path_ga", "moves": ["drop"], "crossover_rate": 0.0, "max_length": 4}
    settings = {"name": "sequence", "stages": [everything, "recipe_search"], "evaluations": [150]}
    asked, _ = run(settings, rounds=60)
    # Three founders, and of each all shorter paths.
    assert len({c.recipe for c in asked if not isinstance(c.recipe, Linear)}) <= 3 * 15
    assert any(isinstance(c.recipe, Linear) for c in asked)


def test_many_stages_of_a_small_budget_have_an_evaluation_each():
    settings = {"name": "sequence", "stages": ["dataflow", "recipe_search", "path_ga"]}
    asked, _ = run(settings, replace(START, evaluations=2), rounds=6)
    assert "cma_es" in {c.operator for c in asked}
    assert {"drop", "repeat", "insert", "stack"} & {c.operator for c in asked}
