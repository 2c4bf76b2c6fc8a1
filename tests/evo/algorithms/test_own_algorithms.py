"""Algorithms of a user's own: named in a config, checked, run, resumed; and the loop by hand."""

import json

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from toy_runs import rows, run
from toys import FOUNDERS, toy_config, write_founders

import evo
from cluster.founders.checkpoints import CheckpointError
from evo.algorithms import Scored, Traits, make, read_settings, traits
from evo.algorithms.protocol import Start
from evo.config.loader import load_config
from evo.errors import EvoError
from evo.evolution import Evolution
from operators.recipe import Founder, Route, Step, linear

CLIMBER = """
from evo.algorithms import Candidate, Traits
from evo.algorithms.protocol import founder_candidates
from operators.variation.mutation import from_task_vectors
import numpy as np

class Climber:
    def __init__(self, start, *, step: float = 0.3, children: int = 4, kind: str = "plain"):
        self.start, self.step, self.children = start, step, children
        self.rng = np.random.default_rng(start.seed)
        self.generation, self.population = -1, ()

    def ask(self):
        if self.generation < 0:
            return founder_candidates(self.start)
        draws = self.rng.normal(0.3, self.step, (self.children, len(self.start.founders)))
        return [
            Candidate(from_task_vectors(self.start.founders, self.start.base, w), "climb")
            for w in draws
        ]

    def tell(self, evaluations):
        self.population = tuple(sorted(evaluations, key=lambda s: -s.fitness))
        self.generation += 1

class Voting(Climber):
    traits = Traits(voters=2)

class NoTell:
    def __init__(self, start): ...
    ask = generation = population = None

def no_start(): ...
"""


@pytest.fixture
def climber(tmp_path, monkeypatch):
    """The name of a class in a module that only this test can import."""
    module = f"climber_{abs(hash(tmp_path))}"
    (tmp_path / f"{module}.py").write_text(CLIMBER)
    monkeypatch.syspath_prepend(tmp_path)
    return f"{module}:Climber"


@pytest.fixture
def config_file(tmp_path):
    write_founders(tmp_path)

    def write(algorithm):
        path = tmp_path / "run.yaml"
        founders = ", ".join(f"{n}.safetensors" for n in FOUNDERS)
        path.write_text(
            f"base: base.safetensors\nfounders: [{founders}]\ntasks:\n"
            "  - {name: toy, metric: 'toys:nearness', data: {dev: dev}}\n"
            f"algorithm:\n{algorithm}\n"
            "engine: {kind: module, build: 'toys:build'}\npool: {kind: local}\n"
        )
        return path

    return write


def test_a_class_named_in_a_config_runs_with_its_settings(tmp_path, climber, config_file):
    config = load_config(
        config_file(f"  name: {climber}\n  children: 7"), ["budget.evaluations=24"]
    )
    summary = run(config, tmp_path / "run")
    assert summary.algorithm == climber
    assert [r["operator"] for r in rows(tmp_path / "run", "individuals")].count("climb") == 21
    begun = json.loads((tmp_path / "run" / "config.json").read_text())
    assert begun["algorithm"] == {"name": climber, "children": 7}


def test_a_run_is_resumed_with_the_class_that_its_config_names(tmp_path, climber):
    changes = {"algorithm": {"name": climber, "step": 0.2}, "budget": {"evaluations": 31}}
    whole = run(toy_config(tmp_path, **changes), tmp_path / "whole")
    with Evolution(toy_config(tmp_path, **changes), tmp_path / "cut") as evolution:
        for generation in evolution:
            if generation.number == 3:
                break
    with Evolution.resume(tmp_path / "cut") as evolution:
        for _ in evolution:
            pass
        assert evolution.finish().winner == whole.winner


def test_a_changed_class_is_noticed_on_resume(tmp_path, climber):
    config = toy_config(tmp_path, algorithm=climber, budget={"evaluations": 31})
    with Evolution(config, tmp_path / "run") as evolution:
        next(iter(evolution))
    source = tmp_path / f"{climber.partition(':')[0]}.py"
    source.write_text(source.read_text() + "\n# another\n")
    with pytest.raises(EvoError, match=climber.partition(":")[0]):
        Evolution.resume(tmp_path / "run")


def test_a_finished_run_is_read_without_the_users_code(tmp_path, climber, monkeypatch):
    run(toy_config(tmp_path, algorithm=climber, budget={"evaluations": 11}), tmp_path / "run")
    (tmp_path / f"{climber.partition(':')[0]}.py").unlink()
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    context = {"check_files": False}
    assert read_settings(written["algorithm"], context=context).name == climber


@pytest.mark.parametrize(
    ("settings", "line", "message"),
    [
        ("  name: {}\n  stepp: 0.1", 7, r"algorithm.stepp: unknown key. Did you mean 'step'\?"),
        ("  name: {}\n  children: many", 7, "algorithm.children: Input should be a valid integer"),
        ("  name: {}s", 6, "algorithm.name: .* has no 'Climbers'. Did you mean Climber"),
        ("  name: nowhere:Climber", 6, "no module 'nowhere'"),
    ],
)
def test_wrong_settings_are_named_as_ours_are(settings, line, message, climber, config_file):
    with pytest.raises(EvoError, match=rf"run.yaml, line {line}: .*{message}"):
        load_config(config_file(settings.format(climber)))


def test_what_is_no_algorithm_is_refused(climber):
    start = Start((Founder("a", "a"), Founder("b", "b")), Founder("base", "0"), 0)
    module = climber.partition(":")[0]
    with pytest.raises(EvoError, match="has no 'tell'"):
        make(read_settings(f"{module}:NoTell"), start)
    with pytest.raises(ValidationError, match="must take the Start as its first argument"):
        read_settings(f"{module}:no_start")


def test_traits_of_a_class_are_its_own(climber):
    module = climber.partition(":")[0]
    assert traits(read_settings(climber)) == Traits(code=(climber,))
    assert traits(read_settings(f"{module}:Voting")).voters == 2


def test_a_class_may_be_a_stage_of_a_sequence(tmp_path, climber):
    stages = [{"name": climber, "children": 5}, "recipe_search"]
    algorithm = {"name": "sequence", "stages": stages, "evaluations": [13]}
    config = toy_config(tmp_path, algorithm=algorithm, budget={"evaluations": 30})
    assert traits(config.algorithm).code == (climber,)
    run(config, tmp_path / "run")
    operators = [r["operator"] for r in rows(tmp_path / "run", "individuals")]
    assert operators.count("climb") == 10
    assert "cma_es" in operators


def test_the_loop_by_hand_asks_what_a_run_asks(tmp_path):
    config = toy_config(tmp_path, seed=4, budget={"evaluations": 40})
    run(config, tmp_path / "run")
    founders = evo.open_founders(config.founders, base=config.base)
    algorithm, asked = evo.make("recipe_search", founders, seed=4), []
    while len(asked) < 33:
        batch = algorithm.ask()
        asked += [c.id for c in batch]
        known = {r["individual"]: r["fitness"] for r in rows(tmp_path / "run")}
        algorithm.tell([Scored(c, known[c.id]) for c in batch])
    individuals = [r["id"] for r in rows(tmp_path / "run", "individuals")]
    assert individuals[: len(asked)] == asked


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        ("genom", "Did you mean 'genome'"),
        ({"name": "genome", "colour": 1}, "algorithm.colour: Extra inputs"),
        ("nowhere:Climber", "no module 'nowhere'"),
        ({"name": "recipe_search", "layer_groups": 2}, "layer_groups: 2 groups"),
    ],
)
def test_make_says_what_is_wrong(tmp_path, algorithm, message):
    paths = write_founders(tmp_path)
    founders = evo.open_founders({n: paths[n] for n in FOUNDERS}, base=paths["base"])
    with pytest.raises(EvoError, match=message):
        evo.make(algorithm, founders)


def test_built_weights_are_ones_own(tmp_path):
    paths = write_founders(tmp_path)
    founders = evo.open_founders({n: paths[n] for n in FOUNDERS}, base=paths["base"])
    a, b, _ = (f.founder for f in founders.founders)
    mean = evo.build(linear({a: 0.5, b: 0.5}), founders)
    half = evo.build(linear({a: 0.5, b: 0.5}), founders, dtype="bfloat16")
    assert mean["x"].tolist() == [0.5, 0.5, 0.0, 0.25]
    assert half["x"].dtype == torch.bfloat16
    mean["x"].zero_()
    assert torch.equal(evo.build(a, founders)["x"], load_file(paths["a"])["x"])
    with pytest.raises(EvoError, match="is a data-flow path"):
        evo.build(Route(a, (Step(a, 0, 1.0),), a), founders)


def test_a_founder_that_changed_since_it_was_opened_is_not_built(tmp_path):
    paths = write_founders(tmp_path)
    founders = evo.open_founders({n: paths[n] for n in FOUNDERS}, base=paths["base"])
    save_file({"x": torch.ones(4)}, paths["a"])
    with pytest.raises(CheckpointError, match=r"a\.safetensors"):
        evo.build(founders.founders[0].founder, founders)
