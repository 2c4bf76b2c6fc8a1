"""One suite for every algorithm of ALGORITHMS, then what is particular to each."""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from evo.algorithms import ALGORITHMS, Candidate, Scored, Start, make, read_settings
from evo.algorithms.genome import GenomePlusSettings, GenomeSettings
from evo.algorithms.random_search import RandomSearchSettings
from evo.algorithms.recipe_search import RecipeSearchSettings
from evo.errors import EvoError
from operators.recipe import Founder, Linear, Noise
from operators.recipe.coefficients import Grouped

BASE = Founder("base", "0")
FOUNDERS = tuple(Founder(name, name) for name in "abc")
TARGET = {"a": 1.3, "b": -0.4, "c": 0.4}  # task-vector weights, far outside the founders' hull


def start(seed=0, founders=FOUNDERS):
    return Start(founders, BASE, seed, layers=4)


def weights_of(recipe):
    """The coefficient of each founder; noise counts for nothing here."""
    terms = recipe.terms if isinstance(recipe, Linear) else ((recipe, 1.0),)
    return {r.name: c for r, c in terms if isinstance(r, Founder)}


def quadratic(candidate):
    weights = weights_of(candidate.recipe)
    return -sum((weights.get(name, 0.0) - at) ** 2 for name, at in TARGET.items())


def evolve(algorithm, generations, fitness=quadratic):
    """All that was asked, and all populations."""
    asked, populations = [], []
    while algorithm.generation < generations:
        batch = algorithm.ask()
        algorithm.tell([Scored(c, fitness(c)) for c in batch])
        asked.append(batch)
        populations.append(algorithm.population)
    return asked, populations


@pytest.fixture(params=ALGORITHMS)
def new(request):
    def new(seed=0, **settings):
        return make(read_settings({"name": request.param} | settings), start(seed))

    return new


def test_generation_starts_before_the_founders_and_the_founders_are_generation_0(new):
    algorithm = new()
    assert algorithm.generation == -1
    assert algorithm.population == ()
    batch = algorithm.ask()
    assert [c.recipe for c in batch] == list(FOUNDERS)
    assert all(c.operator == "founder" and c.parents == () for c in batch)
    algorithm.tell([Scored(c, quadratic(c)) for c in batch])
    assert algorithm.generation == 0
    assert {s.candidate.recipe for s in algorithm.population} == set(FOUNDERS)


def test_a_founder_listed_twice_is_asked_once():
    for name in ALGORITHMS:
        algorithm = make(read_settings(name), start(founders=(*FOUNDERS, FOUNDERS[0])))
        assert len(algorithm.ask()) == 3


def test_generations_grow_by_one(new):
    algorithm = new()
    for _ in range(20):
        before = algorithm.generation
        algorithm.tell([Scored(c, quadratic(c)) for c in algorithm.ask()])
        assert algorithm.generation - before in (0, 1)
    assert algorithm.generation > 5


def test_the_same_seed_and_scores_ask_the_same(new):
    assert evolve(new(3), 8) == evolve(new(3), 8)


def test_another_seed_asks_something_else(new):
    assert evolve(new(3), 8)[0] != evolve(new(4), 8)[0]


def test_global_random_numbers_are_neither_used_nor_changed(new):
    np.random.seed(0)
    first = evolve(new(), 4)
    state = np.random.get_state()[1].tolist()
    np.random.seed(1)
    assert evolve(new(), 4) == first
    np.random.seed(0)
    assert np.random.get_state()[1].tolist() == state


def test_a_batch_asks_each_recipe_once(new):
    for batch in evolve(new(), 15)[0]:
        assert len({c.id for c in batch}) == len(batch)


def test_parents_were_asked_before_their_children(new):
    known = set()
    for batch in evolve(new(), 15)[0]:
        born = {c.id for c in batch}
        for candidate in batch:
            assert set(candidate.parents) <= known | born
            assert candidate.id not in candidate.parents or candidate.id in known
        known |= born


def test_the_population_is_sorted_best_first(new):
    for population in evolve(new(), 15)[1]:
        fitness = [s.fitness for s in population]
        assert fitness == sorted(fitness, reverse=True)


def failing(share, seed=0):
    rng = np.random.default_rng(seed)
    return lambda c: math.nan if rng.random() < share else quadratic(c)


@pytest.mark.parametrize("fitness", [failing(0.5), failing(0.9, 1)], ids=["half", "most"])
def test_failed_candidates_are_borne(new, fitness):
    algorithm = new()
    founders = algorithm.ask()
    algorithm.tell([Scored(founders[0], -1.0), *(Scored(c, math.nan) for c in founders[1:])])
    for population in evolve(algorithm, 15, fitness)[1]:
        scores = [s.fitness for s in population]
        alive = [f for f in scores if math.isfinite(f)]
        assert scores[: len(alive)] == sorted(alive, reverse=True)  # the failed come last


def test_a_generation_in_which_all_fail_does_not_end_the_search(new):
    algorithm = new()
    algorithm.tell([Scored(c, quadratic(c)) for c in algorithm.ask()])
    evolve(algorithm, 4, lambda c: math.nan)
    later = evolve(algorithm, 12)[0]
    assert any(later)
    best = max(s.fitness for s in algorithm.population)
    assert math.isfinite(best)


def test_fitness_may_be_negative_zero_or_the_same_for_all(new):
    for value in (0.0, -3.0, 1e12, -1e-300):
        assert evolve(new(), 6, lambda c, v=value: v)[0]


def test_unknown_settings_are_refused():
    for name in ALGORITHMS:
        with pytest.raises(ValidationError, match="Extra inputs"):
            read_settings({"name": name, "colour": "blue"})


@pytest.mark.parametrize("seed", range(3))
def test_recipe_search_finds_the_optimum_outside_the_hull(seed):
    algorithm = make(RecipeSearchSettings(), start(seed))
    asked, populations = evolve(algorithm, 42)
    assert sum(map(len, asked)) <= 300
    best = max((s for p in populations for s in p), key=lambda s: s.fitness)
    assert best.fitness > -1e-3
    for name, at in TARGET.items():
        assert weights_of(best.candidate.recipe)[name] == pytest.approx(at, abs=0.03)


def test_recipe_search_beats_random_search():
    def best(settings, generations):
        asked, populations = evolve(make(settings, start()), generations)
        assert sum(map(len, asked)) <= 203
        return max(s.fitness for p in populations for s in p)

    assert best(RecipeSearchSettings(), 28) > best(RandomSearchSettings(), 20) / 10


def test_recipe_search_starts_around_the_uniform_average():
    algorithm = make(RecipeSearchSettings(sigma0=1e-6), start())
    evolve(algorithm, 0)
    for candidate in algorithm.ask():
        weights = weights_of(candidate.recipe)
        assert [weights[n] for n in "abc"] == pytest.approx([1 / 3] * 3, abs=1e-4)


def test_recipe_search_goes_on_after_it_has_converged():
    algorithm = make(RecipeSearchSettings(sigma0=0.01), start())
    asked, populations = evolve(algorithm, 400, lambda c: round(quadratic(c), 1))
    assert all(len(batch) == 7 for batch in asked[1:])
    assert max(s.fitness for s in populations[-1]) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize(("founders", "groups"), [(2, 1), (3, 1), (10, 1), (3, 4), (30, 1)])
def test_the_population_of_recipe_search_grows_with_its_dimensions(founders, groups):
    many = tuple(Founder(f"f{i}", str(i)) for i in range(founders))
    settings = RecipeSearchSettings(layer_groups=groups, first_stage=0)
    algorithm = make(settings, start(founders=many))
    algorithm.tell([Scored(c, 0.5) for c in algorithm.ask()])
    assert len(algorithm.ask()) == 4 + math.floor(3 * math.log(founders * groups))


def test_the_population_of_recipe_search_can_be_set():
    algorithm = make(RecipeSearchSettings(population=5), start())
    assert [len(b) for b in evolve(algorithm, 3)[0]] == [3, 5, 5, 5]


@pytest.mark.parametrize(
    "settings",
    [
        RecipeSearchSettings(layer_groups=3, first_stage=0),
        GenomeSettings(genes="coefficients", layer_groups=3),
        GenomePlusSettings(genes="coefficients", layer_groups=3),
    ],
    ids=lambda s: s.name,
)
def test_layer_groups_give_coefficients_by_layer(settings):
    asked, _ = evolve(make(settings, start()), 10, lambda c: 0.5)
    later = [c for batch in asked[1:] for c in batch]
    grouped = [
        coefficient
        for candidate in later
        for coefficient in weights_of(candidate.recipe).values()
        if isinstance(coefficient, Grouped)
    ]
    assert grouped
    assert all(len(g.rules) == 1 and len(g.rules[0].values) == 3 for g in grouped)
    if settings.name == "recipe_search":
        assert len(grouped) == 4 * len(later)  # three founders and the base


def test_layer_groups_of_genome_need_coefficient_genes():
    with pytest.raises(ValidationError, match="layer_groups needs genes: coefficients"):
        GenomeSettings(layer_groups=2)


def test_genes_decide_what_genome_mutates():
    for genes in ("weights", "coefficients"):
        settings = GenomeSettings(genes=genes, individual_mutation_rate=1.0, crossover_rate=0.0)
        asked, _ = evolve(make(settings, start()), 3)
        mutants = [c for batch in asked[1:] for c in batch]
        noisy = [any(isinstance(r, Noise) for r, _ in c.recipe.terms) for c in mutants]
        assert set(noisy) == {genes == "weights"}
        assert {c.operator for c in mutants} == {f"mutation:{genes}"}


def test_random_search_draws_scaled_shares_of_the_founders():
    settings = RandomSearchSettings(batch=50, scale=(0.5, 3.0))
    algorithm = make(settings, start())
    evolve(algorithm, 0)
    for candidate in algorithm.ask():
        weights = [weights_of(candidate.recipe)[n] for n in "abc"]
        assert min(weights) > 0.0
        assert 0.5 <= sum(weights) <= 3.0


@pytest.mark.parametrize("scale", [(2.0, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_random_search_refuses_a_scale_that_is_none(scale):
    with pytest.raises(ValidationError):
        RandomSearchSettings(scale=scale)


def test_genome_can_start_from_pairs():
    algorithm = make(GenomeSettings(init="pairs", population=6), start())
    batch = algorithm.ask()
    assert len({c.id for c in batch}) == 6
    assert all(len(weights_of(c.recipe)) == 2 for c in batch)
    assert all(sum(weights_of(c.recipe).values()) == pytest.approx(1.0) for c in batch)


def test_genome_never_grows_beyond_its_population():
    for settings in (GenomeSettings(population=4), GenomePlusSettings(population=4)):
        _, populations = evolve(make(settings, start()), 20)
        assert max(map(len, populations)) == 4


def test_genome_keeps_its_best():
    for settings in (GenomeSettings(), GenomeSettings(genes="coefficients")):
        _, populations = evolve(make(settings, start()), 30)
        best = [p[0].fitness for p in populations]
        assert best == sorted(best)


def test_candidates_are_values():
    a, b = Candidate(FOUNDERS[0], "founder"), Candidate(FOUNDERS[0], "founder")
    assert a == b
    assert a.id == FOUNDERS[0].id


def test_a_merge_of_adapters_is_refused_where_founders_are_whole_models():
    for settings in (
        RecipeSearchSettings(method="evo_lora_published"),
        GenomeSettings(crossover="evo_lora_published"),
    ):
        with pytest.raises(EvoError, match="evo_lora_published merges LoRA adapters"):
            make(settings, start())
