"""Every algorithm in a steady state: evaluations told one by one, in the order in which they end."""

import heapq
import json
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from evo.algorithms import (
    ALGORITHMS,
    Candidate,
    Scored,
    Start,
    SteadyAlgorithm,
    make,
    read_settings,
)
from evo.algorithms.buffer import Outcome
from evo.algorithms.optimizers import CrossEntropy, DifferentialEvolution, cma_es
from operators.recipe import Founder, Linear, Merge, Recipe, Route
from operators.recipe.coefficients import Grouped

BASE = Founder("base", "0")
FOUNDERS = tuple(Founder(name, name) for name in "abcd")
LAYERS = 4
TARGET = dict(zip("abcd", (1.2, -0.3, 0.5, 0.0), strict=True))
WANTED = ("a0", "b1", "c2", "a3")
VARIANTS = (
    {"name": "recipe_search", "layer_groups": 2, "first_stage": 40},
    {"name": "recipe_search", "methods": ["ties", "dare_ties"]},
    {"name": "genome", "population": 3, "genes": "coefficients", "init": "pairs"},
    {"name": "dataflow", "search": "flat"},
    {"name": "dataflow", "search": "random"},
    {"name": "sequence", "stages": ["genome", "recipe_search", "path_ga"], "evaluations": [60, 60]},
)
CASES = (*({"name": name} for name in ALGORITHMS), *VARIANTS)
IDLE = 300  # known evaluations told in a row: nothing new is to come


def start(seed=0):
    return Start(FOUNDERS, BASE, seed, LAYERS, evaluations=200)


def fitness(recipe):
    """Highest for weights at TARGET, or for the layers of WANTED; a path is better than any weights."""
    if isinstance(recipe, Route):
        steps = [getattr(s.recipe, "name", "merged") + str(s.layer) for s in recipe.steps]
        hits = sum(a == b for a, b in zip(steps, WANTED, strict=False))
        return hits - 0.1 * abs(len(steps) - LAYERS)
    at = weights_of(recipe)
    return -float(sum((at.get(name, 0.0) - wanted) ** 2 for name, wanted in TARGET.items()))


def weights_of(recipe):
    """The weight of each founder, the mean where it differs by layer."""
    if isinstance(recipe, Merge):
        names = [r.name for r in recipe.inputs]
        return dict(zip(names, dict(recipe.params)["weight"], strict=True))
    terms = recipe.terms if isinstance(recipe, Linear) else ((recipe, 1.0),)
    numbers = {r.name: c for r, c in terms if isinstance(r, Founder) and r != BASE}
    return {
        n: np.mean(c.rules[0].values if isinstance(c, Grouped) else c) for n, c in numbers.items()
    }


def each_once(asked):
    once = {}
    for candidate in asked:
        once.setdefault(candidate.id, candidate)
    return list(once.values())


def some_fail(recipe):
    fails = not isinstance(recipe, Founder) and zlib.crc32(recipe.id.encode()) % 3 == 0
    return math.nan if fails else fitness(recipe)


def generational(algorithm, evaluations):
    """The candidates of a generational run, each once and in the order asked, and their fitness."""
    asked, scored = {}, {}
    while len(scored) < evaluations:
        batch = algorithm.ask()
        new = [c for c in batch if c.id not in scored][: evaluations - len(scored)]
        asked |= {c.id: c for c in new}
        scored |= {c.id: fitness(c.recipe) for c in new}
        if len(scored) < evaluations:
            algorithm.tell([Scored(c, scored[c.id]) for c in batch])
    return list(asked.values()), scored


@dataclass
class Farm:
    """A pool of workers that take from 1 to 5 units of time, told as the loop of a run does it."""

    algorithm: SteadyAlgorithm
    workers: int
    seed: int = 0
    fitness: Callable[[Recipe], float] = fitness
    asked: list[Candidate] = field(default_factory=list)
    told: list[Scored] = field(default_factory=list)
    scored: dict[str, float] = field(default_factory=dict)
    generations: list[tuple[Scored, ...]] = field(default_factory=list)
    running: list[Candidate] = field(
        default_factory=list
    )  # and those that wait for the same recipe

    def run(self, evaluations):
        rng, now, running, idle = np.random.default_rng(self.seed), 0.0, [], 0
        waiting: dict[str, list[Candidate]] = {}
        while len(self.scored) < evaluations and idle < IDLE:
            while len(running) < self.workers:
                candidate = self.algorithm.ask_one()
                if candidate is None:
                    break
                self.asked.append(candidate)
                if candidate.id in self.scored:
                    idle += 1
                    self._tell(candidate)
                    if idle == IDLE:
                        break
                elif candidate.id in waiting:
                    waiting[candidate.id].append(candidate)
                else:
                    idle = 0
                    waiting[candidate.id] = [candidate]
                    ends = now + rng.uniform(1.0, 5.0)
                    heapq.heappush(running, (ends, len(self.asked), candidate))
            if not running:
                break
            now, _, candidate = heapq.heappop(running)
            self.scored[candidate.id] = self.fitness(candidate.recipe)
            for same in waiting.pop(candidate.id):
                self._tell(same)
        self.running = [c for same in waiting.values() for c in same]
        return self

    def _tell(self, candidate):
        self.told.append(Scored(candidate, self.scored[candidate.id]))
        self.algorithm.tell_one(self.told[-1])
        if self.algorithm.generation == len(self.generations):
            self.generations.append(self.algorithm.population)
        assert self.algorithm.generation == len(self.generations) - 1  # never two at once


@pytest.fixture(params=CASES, ids=json.dumps)
def new(request):
    return lambda seed=0: make(read_settings(request.param), start(seed))


def test_every_algorithm_takes_evaluations_one_by_one(new):
    assert isinstance(new(), SteadyAlgorithm)


def test_nothing_is_asked_until_all_founders_are_told(new):
    algorithm, first = new(), []
    while (candidate := algorithm.ask_one()) is not None:
        first.append(candidate)
    assert first == new().ask()
    for candidate in reversed(first):
        assert algorithm.generation == -1
        assert algorithm.ask_one() is None
        algorithm.tell_one(Scored(candidate, fitness(candidate.recipe)))
    assert algorithm.generation == 0
    assert {s.candidate for s in algorithm.population} <= set(first)
    assert algorithm.ask_one() is not None


@pytest.mark.parametrize("workers", [1, 8, 32])
def test_the_same_seed_and_order_ask_the_same(new, workers):
    once, again = (Farm(new(3), workers, 5).run(150) for _ in range(2))
    assert once.asked == again.asked
    assert once.generations == again.generations


@pytest.mark.parametrize("workers", [1, 8, 32])
@pytest.mark.parametrize("judge", [fitness, some_fail])
@pytest.mark.parametrize("order", [1, 2])
def test_in_any_order_a_run_goes_on_to_the_end_of_its_budget(new, workers, judge, order):
    farm = Farm(new(), workers, order, judge).run(150)
    assert len(farm.scored) == 150
    assert len(farm.asked) - len(farm.told) == len(farm.running)
    assert len(farm.generations) > 4
    for members in farm.generations:
        assert len({s.candidate.id for s in members}) == len(members)
        alive = [s.fitness for s in members if math.isfinite(s.fitness)]
        assert alive == sorted(alive, reverse=True)


def test_parents_were_asked_before_their_children(new):
    known = {f.id for f in FOUNDERS}
    for candidate in Farm(new(), 8).run(150).asked:
        assert set(candidate.parents) <= known
        known.add(candidate.id)


def test_a_search_of_which_all_children_fail_goes_on(new):
    first = {c.id for c in new().ask()}
    farm = Farm(new(), 8, 0, lambda r: fitness(r) if r.id in first else math.nan)
    assert len(farm.run(100).scored) == 100


# A sequence ends its stages on the dot, and the children of GENOME+ are of individuals before they move.
ALIKE = [c for c in CASES if c["name"] not in ("sequence", "genome_plus")]


@pytest.mark.parametrize("case", ALIKE, ids=json.dumps)
def test_one_evaluation_at_a_time_is_the_generational_search(case):
    for seed in range(3):
        asked, _ = generational(make(read_settings(case), start(seed)), 150)
        farm = Farm(make(read_settings(case), start(seed)), 1).run(150)
        assert each_once(farm.asked)[:150] == asked


@pytest.mark.parametrize("case", CASES, ids=json.dumps)
def test_eight_at_a_time_find_as_much_as_a_generational_search_but_for_chance(case):
    gained, steady = [], []
    for seed in range(8):
        first = make(read_settings(case), start(seed)).ask()
        _, scored = generational(make(read_settings(case), start(seed)), 200)
        farm = Farm(make(read_settings(case), start(seed)), 8, seed).run(200)
        before = max(scored[c.id] for c in first)
        gained.append(max(scored.values()) - before)
        steady.append(max(farm.scored.values()) - before)
    chance = 2.0 * np.std(np.subtract(steady, gained), ddof=1) / math.sqrt(len(steady))
    assert np.mean(steady) > 0.95 * np.mean(gained) - chance
    assert np.mean(steady) > 0.0


def test_a_recipe_that_is_made_again_is_told_again_and_the_search_goes_on():
    case = {"name": "dataflow", "search": "flat", "scales": "none", "repeats": 1}
    few = Start(FOUNDERS[:2], BASE, 0, 2)
    farm = Farm(make(read_settings(case), few), 8).run(1000)
    assert len(farm.scored) < 1000  # all there is
    assert len(farm.told) > 2 * len(farm.scored)
    assert len(farm.generations) > 10


def test_a_search_without_children_runs_dry():
    case = {"name": "genome", "crossover_rate": 0.0, "individual_mutation_rate": 0.0}
    farm = Farm(make(read_settings(case), start()), 8).run(100)
    assert [c.recipe for c in farm.asked] == list(FOUNDERS)


@pytest.mark.parametrize("workers", [1, 8, 32])
def test_individuals_move_without_children_too(workers):
    rates = {"crossover_rate": 0.0, "individual_mutation_rate": 0.0}
    farm = Farm(make(read_settings({"name": "genome_plus"} | rates), start()), workers).run(100)
    assert {c.operator for c in farm.asked} == {"founder", "succession"}
    assert len(farm.generations) > 10


@pytest.mark.parametrize("workers", [1, 8, 32])
def test_a_stage_spends_its_evaluations_and_hands_on_the_best_of_them_all(workers):
    stages = [{"name": "genome", "genes": "coefficients"}, "random_search", "path_ga"]
    case = {"name": "sequence", "stages": stages, "evaluations": [50, 40]}
    farm = Farm(make(read_settings(case), start()), workers).run(130)
    distinct = each_once(farm.asked)
    kinds = [c.operator.split(":")[0] for c in distinct]
    assert set(kinds[:50]) == {"founder", "crossover", "mutation"}
    assert set(kinds[50:90]) == {"random"}
    assert all(isinstance(c.recipe, Route) for c in distinct[90:])
    best = max(distinct[:50], key=lambda c: farm.scored[c.id])
    again = [c.recipe for c in farm.asked if c.operator == "founder"]
    assert again[: 2 * len(FOUNDERS) + 1] == [*FOUNDERS, *FOUNDERS, best.recipe]


OPTIMIZERS = {
    "cma_es": lambda: cma_es(np.full(4, 0.5), np.array([0.0, 0.0, 0.0, 0.25]), 0, sigma=1 / 6),
    "cross_entropy": lambda: CrossEntropy(
        np.full(4, 0.5), np.zeros(4), 0, sigma=0.3, population=20, elite=0.25, smoothing=0.5
    ),
    "differential_evolution": lambda: DifferentialEvolution(
        np.full(4, 0.5),
        np.zeros(4),
        0,
        sigma=0.3,
        population=16,
        factor=(0.5, 0.9),
        crossover=0.9,
    ),
}


@pytest.mark.parametrize("new", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_optimizers_learn_from_proposals_of_older_asks_in_any_order(new):
    optimizer, rng, tried, waiting = new(), np.random.default_rng(0), [], []
    top = np.array([0.9, 0.25, 0.6, 0.0])
    for _ in range(80):
        asked = optimizer.ask()
        waiting += asked
        if len(waiting) >= 3 * len(asked):
            rng.shuffle(waiting)
            told, waiting = waiting[: len(asked)], waiting[len(asked) :]
            optimizer.tell([Outcome("", p, -float(((p.x - top) ** 2).sum())) for p in told])
            tried += [float(((p.x - top) ** 2).sum()) for p in told]
    assert min(tried) < 2e-3


@pytest.mark.parametrize("name", ["cross_entropy", "differential_evolution"])
def test_a_search_that_has_converged_starts_again_whatever_is_in_flight(name):
    case = {"name": name, "population": 8, "bounds": {"weight": [-1.0, 2.0]}}
    farm = Farm(make(read_settings(case), start()), 8).run(3000)
    points = np.array([[weights_of(c.recipe).get(n, 0.0) for n in "abcd"] for c in farm.asked[4:]])
    windows = range(0, len(points) - 8, 8)
    spread = [np.ptp(points[at : at + 8], axis=0).max() for at in windows]
    converged = next(i for i, s in enumerate(spread) if s < 1e-3)
    assert max(spread[converged:]) > 0.3
