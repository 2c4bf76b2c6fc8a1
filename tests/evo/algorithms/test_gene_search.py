"""Searches over genes: optimizers on known functions, stages, methods side by side, any method."""

import math

import numpy as np
import pytest
import yaml
from places import EXAMPLES
from pydantic import ValidationError

from evo.algorithms import Scored, Start, make, read_settings
from evo.algorithms.buffer import Outcome
from evo.algorithms.gene_space import GeneSettings
from evo.algorithms.optimizers import CrossEntropy, DifferentialEvolution
from evo.algorithms.optimizers import cma_es as new_cma_es
from evo.algorithms.recipe_search import PRESETS, RecipeSearchSettings
from evo.errors import EvoError
from operators.merge import MERGES
from operators.recipe import Founder, Linear, Merge
from operators.recipe.coefficients import Grouped

BASE = Founder("base", "0")
FOUNDERS = tuple(Founder(name, name) for name in "abcd")
OPTIMUM = np.array([0.9, 0.25, 0.6, 0.0])
ONE_METHOD = ("recipe_search", "cross_entropy", "differential_evolution")
SEARCHED = [n for n, m in MERGES.items() if any(p.search for p in m.parameters)]


def start(seed=0, founders=FOUNDERS, **more):
    return Start(founders, BASE, seed, layers=4, **more)


def settings_of(name, **settings):
    return read_settings({"name": name} | settings)


def cma_es(x0, seed):
    return new_cma_es(x0, np.zeros(len(x0)), seed, sigma=1 / 6)


def cross_entropy(x0, seed):
    return CrossEntropy(
        x0, np.zeros(len(x0)), seed, sigma=0.3, population=20, elite=0.25, smoothing=0.5
    )


def differential_evolution(x0, seed):
    return DifferentialEvolution(
        x0,
        np.zeros(len(x0)),
        seed,
        sigma=0.3,
        population=16,
        factor=(0.5, 0.9),
        crossover=0.9,
    )


OPTIMIZERS = (cma_es, cross_entropy, differential_evolution)


def climb(optimizer, fitness, rounds):
    """All points that were tried, shape (points, coordinates)."""
    tried = []
    for _ in range(rounds):
        asked = optimizer.ask()
        optimizer.tell([Outcome(str(i), p, fitness(p.x)) for i, p in enumerate(asked)])
        tried += [p.x for p in asked]
    return np.stack(tried)


def bowl(x):
    return -float(((x - OPTIMUM) ** 2).sum())


@pytest.mark.parametrize("new", OPTIMIZERS)
@pytest.mark.parametrize("seed", range(3))
def test_optimizers_find_the_top_and_never_leave_the_cube(new, seed):
    tried = climb(new(np.full(4, 0.5), seed), bowl, 60)
    assert tried.min() >= 0.0
    assert tried.max() <= 1.0
    assert max(map(bowl, tried)) > -2e-3


@pytest.mark.parametrize("new", OPTIMIZERS)
def test_optimizers_stay_in_the_cube_when_the_top_lies_outside(new):
    tried = climb(new(np.ones(4), 1), lambda x: float(x.sum()), 20)
    assert tried.min() >= 0.0
    assert tried.max() <= 1.0
    assert tried[-1].min() > 0.8


@pytest.mark.parametrize("new", OPTIMIZERS)
def test_optimizers_converge_and_say_so(new):
    optimizer = new(np.full(4, 0.5), 0)
    assert not optimizer.converged
    climb(optimizer, bowl, 400)
    assert optimizer.converged


def test_coordinates_with_steps_take_whole_steps_and_reach_the_best_one():
    steps = np.array([0.25, 0.0])
    optimizer = new_cma_es(np.array([0.0, 0.5]), steps, 0, sigma=1 / 6)
    tried = climb(optimizer, lambda x: -abs(x[0] - 0.75) - (x[1] - 0.3) ** 2, 40)
    assert np.all(tried[:, 0] * 4 == np.rint(tried[:, 0] * 4))
    best = max(tried, key=lambda x: -abs(x[0] - 0.75) - (x[1] - 0.3) ** 2)
    assert best == pytest.approx([0.75, 0.3], abs=0.02)


def test_children_of_differential_evolution_name_the_points_they_came_from():
    optimizer = differential_evolution(np.full(4, 0.5), 0)
    climb(optimizer, bowl, 1)
    for proposal in optimizer.ask():
        assert 2 <= len(proposal.parents) <= 4
        assert set(proposal.parents) <= {str(i) for i in range(16)}


def weights_of(recipe):
    if isinstance(recipe, Merge):
        return dict(
            zip([r.name for r in recipe.inputs], dict(recipe.params)["weight"], strict=True)
        )
    terms = recipe.terms if isinstance(recipe, Linear) else ((recipe, 1.0),)
    return {r.name: c for r, c in terms if r != BASE}


def evolve(algorithm, evaluations, fitness):
    """All that was asked after the founders, and its fitness."""
    told = {}
    while len(told) < evaluations:
        batch = algorithm.ask()
        scored = [Scored(c, fitness(c.recipe)) for c in batch]
        algorithm.tell(scored)
        told |= {s.candidate.id: s for s in scored}
    return list(told.values())[len(FOUNDERS) :]


def nearness(recipe):
    """Highest at weights of (1.2, −0.3, 0.5, 0)."""
    weights = weights_of(recipe)
    wanted = dict(zip("abcd", (1.2, -0.3, 0.5, 0.0), strict=True))
    return -sum((weights.get(n, 0.0) - at) ** 2 for n, at in wanted.items())


@pytest.mark.parametrize("kind", [*ONE_METHOD, "lorahub"])
def test_every_search_finds_weights_outside_the_hull(kind):
    told = evolve(make(settings_of(kind), start()), 500, nearness)
    assert max(s.fitness for s in told) > -0.02


@pytest.mark.parametrize("kind", ONE_METHOD)
@pytest.mark.parametrize("method", SEARCHED)
def test_every_search_works_with_every_merge_method(kind, method):
    least, most = MERGES[method].inputs
    founders = FOUNDERS[: max(2, least)] if most is None else FOUNDERS
    algorithm = make(settings_of(kind, method=method), start(founders=founders, adapters=True))
    rng = np.random.default_rng(0)
    told = {}
    for _ in range(4):
        batch = algorithm.ask()
        algorithm.tell([Scored(c, float(rng.random())) for c in batch])
        told |= {c.id: c for c in batch}
    merged = [c for c in told.values() if c.operator != "founder"]
    assert len(merged) > 4
    for candidate in merged:
        if isinstance(candidate.recipe, Merge):
            assert candidate.recipe.method == method
            assert candidate.seed == candidate.recipe.seed
        assert set(candidate.parents) <= told.keys()


def test_a_method_of_few_models_takes_the_best_founders():
    fitness = dict(zip("abcd", (0.1, 0.9, math.nan, 0.4), strict=True))
    algorithm = make(RecipeSearchSettings(method="slerp"), start())
    told = evolve(algorithm, 12, lambda r: fitness[r.name] if isinstance(r, Founder) else 0.5)
    assert {tuple(r.name for r in s.candidate.recipe.inputs) for s in told} == {("b", "d")}


@pytest.mark.parametrize(
    ("origin", "expected"),
    [("uniform", (0.25,) * 4), ("fitness", (0.25, 0.0, 0.0, 0.75)), (0.5, (0.5,) * 4)],
)
def test_the_origin_of_the_weights(origin, expected):
    algorithm = make(RecipeSearchSettings(origin=origin, sigma0=1e-9), start())
    fitness = dict(zip("abcd", (0.1, 0.0, math.nan, 0.3), strict=True))
    algorithm.tell([Scored(c, fitness[c.recipe.name]) for c in algorithm.ask()])
    for candidate in algorithm.ask():
        weights = weights_of(candidate.recipe)
        assert [weights.get(n, 0.0) for n in "abcd"] == pytest.approx(expected, abs=1e-6)


def test_layers_and_filters_come_after_the_founders_and_start_at_the_best():
    settings = RecipeSearchSettings(layer_groups=2, filters=("mlp",), first_stage=40, sigma0=0.1)
    told = evolve(make(settings, start()), 120, nearness_of_mean)
    split = [isinstance(weights_of(s.candidate.recipe)["a"], Grouped) for s in told]
    assert not any(split[:40])
    assert all(split[60:])
    first = max(s.fitness for s in told[: split.index(True)])
    assert min(s.fitness for s in told[split.index(True) :][:12]) > first - 1.0
    assert max(s.fitness for s in told) > first


def nearness_of_mean(recipe):
    """Layer groups and filters count by their mean, and by how far the first is above the last."""
    total = 0.0
    for name, at in zip("abcd", (1.0, 0.2, 0.5, 0.0), strict=True):
        weight = weights_of(recipe).get(name, 0.0)
        numbers = (
            [n for r in weight.rules for n in r.values] if isinstance(weight, Grouped) else [weight]
        )
        total -= (np.mean(numbers) - at) ** 2 + (numbers[0] - numbers[-1] - 0.2) ** 2
    return float(total)


def test_no_first_stage_starts_with_all_genes():
    settings = RecipeSearchSettings(layer_groups=2, first_stage=0)
    told = evolve(make(settings, start()), 20, lambda r: 0.5)
    assert all(isinstance(weights_of(s.candidate.recipe)["a"], Grouped) for s in told)


def test_of_several_methods_the_best_is_found():
    settings = RecipeSearchSettings(methods=("task_arithmetic", "ties", "dare_ties"))

    def fitness(recipe):
        return nearness(recipe) + (isinstance(recipe, Merge) and recipe.method == "dare_ties")

    told = evolve(make(settings, start()), 400, fitness)
    methods = [getattr(s.candidate.recipe, "method", "sum") for s in told]
    assert set(methods[:100]) == {"sum", "ties", "dare_ties"}
    assert methods[-100:].count("dare_ties") > 80
    assert max(s.fitness for s in told) > 0.95


def test_lorahub_loses_a_share_of_its_weights():
    def founders_only(recipe):
        return 0.0

    free = evolve(make(settings_of("lorahub", penalty=0.0), start()), 300, founders_only)
    pressed = evolve(make(settings_of("lorahub"), start()), 300, founders_only)

    def size(told):
        return np.mean(
            [abs(w) for s in told[-50:] for w in weights_of(s.candidate.recipe).values()]
        )

    assert size(pressed) < 0.1 < size(free)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "ties", "methods": ("ties", "sce")}, "method and methods: give one"),
        ({"methods": ("ties", "ties")}, "listed twice"),
        ({"method": "tie"}, "Did you mean 'ties'"),
        ({"elite": 0.5}, "elite needs optimizer: cross_entropy"),
        (
            {"optimizer": "cross_entropy", "crossover": 0.5},
            "crossover needs optimizer: differential_evolution",
        ),
        (
            {"optimizer": "differential_evolution", "factor": (0.9, 0.5)},
            r"factor must be \[low, high\]",
        ),
        ({"params": {"density": 0.5}}, "params.density: task_arithmetic has no such parameter"),
    ],
)
def test_recipe_search_refuses_what_makes_no_sense(changes, message):
    with pytest.raises(ValidationError, match=message):
        RecipeSearchSettings(**changes)


def test_what_the_founders_can_not_do_is_refused_before_anything_runs():
    with pytest.raises(EvoError, match="pcb: sees whole models"):
        make(RecipeSearchSettings(method="pcb", layer_groups=2), start())
    with pytest.raises(EvoError, match="layer_groups: 9 groups, but the models have 4"):
        make(settings_of("cross_entropy", layer_groups=9), start())


def test_settings_are_plain_data():
    for kind in (*ONE_METHOD, "lorahub"):
        settings = settings_of(
            kind, layer_groups=2, filters=["mlp"], bounds={"weight": (-1.0, 2.0)}
        )
        assert isinstance(settings, GeneSettings)
        assert read_settings(settings.model_dump(mode="json")) == settings
    several = RecipeSearchSettings(methods=("ties", "sce"))
    assert RecipeSearchSettings.model_validate_json(several.model_dump_json()) == several


def test_the_example_shows_every_setting_and_is_one():
    text = (EXAMPLES / "recipe_search.yaml").read_text()
    settings = RecipeSearchSettings.model_validate(yaml.safe_load(text)["algorithm"])
    for name in RecipeSearchSettings.model_fields:
        assert f"{name}:" in text
    make(settings, start())


def test_a_filter_that_no_tensor_has_in_its_name_is_refused():
    known = Start(FOUNDERS, BASE, 0, layers=4, tensors=("model.layers.0.mlp.up_proj.weight",))
    make(RecipeSearchSettings(filters=("mlp",)), known)
    with pytest.raises(EvoError, match="no tensor of the models has 'atn' in its name"):
        make(RecipeSearchSettings(filters=("mlp", "atn")), known)


@pytest.mark.parametrize(
    "settings",
    [
        RecipeSearchSettings(
            methods=("task_arithmetic", "dare_ties"), masks=3, layer_groups=2, first_stage=20
        ),
        settings_of("cross_entropy", method="bitdelta"),
        settings_of("differential_evolution", method="ties", filters=("mlp",)),
        settings_of("lorahub"),
    ],
    ids=lambda s: s.name,
)
def test_the_same_evaluations_told_again_are_asked_again(settings):
    rng = np.random.default_rng(7)
    first, asked = make(settings, start(3)), []
    for _ in range(12):
        batch = first.ask()
        scored = [Scored(c, float(rng.choice([0.1, 0.2, 0.3, math.nan]))) for c in batch]
        first.tell(scored)
        asked.append(scored)
    again = make(settings, start(3))
    for scored in asked:
        assert again.ask() == [s.candidate for s in scored]
        again.tell(scored)
    assert again.population == first.population
    assert make(settings, start(4)).ask() == make(settings, start(3)).ask()  # the founders


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_recipe_search_with_its_settings(name):
    def ids(settings):
        return [s.candidate.id for s in evolve(make(settings, start(2)), 80, nearness)]

    spelled_out = settings_of("recipe_search", **PRESETS[name])
    assert ids(settings_of(name)) == ids(spelled_out)


def test_a_penalty_needs_weights():
    with pytest.raises(EvoError, match="penalty: no weights are searched"):
        make(RecipeSearchSettings(method="slerp", penalty=0.1), start(founders=FOUNDERS[:2]))
