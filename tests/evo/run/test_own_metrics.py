"""Metrics of a user's own: by name, as objects, from `__main__`, and what a run records of them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from places import ROOT
from toy_runs import run
from toys import Point, nearness, toy_config

import evo
from evo.run.pool import start_pool
from evo.run.setup import load_tasks, open_founders
from evo.run_dir import RunDir

MODULE = """
import evo

def ask(row, options):
    return (evo.Call("toys:nearness", row["data"]),)

def score(row, outputs, options):
    return 10 * sum(outputs[0].values)

TENFOLD = evo.Metric(name="tenfold", requests=ask, score=score, row_format=None)
"""
SMALL = {"baselines": {}, "budget": {"evaluations": 8}}


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_scoring.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("own_scoring", None)
    import own_scoring

    return own_scoring


def configured(folder: Path, metric: object, **more: object) -> evo.RunConfig:
    data = {"dev": "dev", "select": "select", "test": "test"}
    tasks = (evo.TaskConfig(name="toy", metric=metric, data=data),)
    return toy_config(folder, tasks=tasks, **(SMALL | more))


def test_a_metric_object_and_its_name_are_the_same_metric(tmp_path, own_module):
    given = configured(tmp_path / "f", own_module.TENFOLD)
    named = configured(tmp_path / "f", "own_scoring:TENFOLD")
    assert given == named
    plain = run(configured(tmp_path / "f", nearness), tmp_path / "plain")
    tenfold = run(given, tmp_path / "tenfold")
    assert tenfold.winner.test == pytest.approx(40 * plain.winner.test)


def test_a_run_goes_on_only_with_the_function_that_it_started_with(tmp_path):
    def own(factor):
        return lambda module, split: [factor * v for v in nearness(module, split)]

    config = configured(tmp_path / "f", own(2.0), budget={"evaluations": 40})
    with evo.Evolution(config, tmp_path / "r") as evolution:
        next(iter(evolution))
    other = configured(tmp_path / "f", own(3.0))
    assert other.tasks[0].metric != config.tasks[0].metric
    with evo.Evolution.resume(tmp_path / "r") as evolution:
        for _ in evolution:
            pass
        assert evolution.finish().evaluations == 40


def test_lambdas_of_one_line_and_partials_have_names_of_their_own():
    from functools import partial

    metrics = [lambda m, s: [0.0], lambda m, s: [1.0], partial(nearness, split="a"), partial(nearness, split="b")]  # fmt: skip
    names = [evo.TaskConfig(name="t", metric=m, data={"dev": "d"}).metric for m in metrics]
    assert len(set(names)) == 4


STDIN = """
import sys, traceback, evo
from pathlib import Path
from toys import nearness, toy_config

def f(module, split):
    return nearness(module, split)

tasks = [{"name": "toy", "metric": "__main__:f", "data": {"dev": "dev"}}]
config = toy_config(Path("f"), tasks=tasks, baselines={}, budget={"evaluations": 20})
with evo.Evolution(config, "r") as run:
    next(iter(run))

def f(module, split):
    return [2 * v for v in nearness(module, split)]

try:
    evo.Evolution.resume("r")
except evo.EvoError as error:
    print(error)
"""


def test_a_function_typed_into_python_is_a_metric_and_recorded_by_content(tmp_path):
    path = f"{ROOT}:{ROOT / 'tests' / 'support'}"
    done = subprocess.run(
        [sys.executable, "-"], cwd=tmp_path, input=STDIN, env={"PYTHONPATH": path},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "__main__:f" in done.stdout


def test_another_program_is_told_where_a_function_of_main_was(tmp_path):
    config = configured(tmp_path / "f", "__main__:no_such_function")
    with pytest.raises(evo.EvoError, match=r"'__main__' is the program .* that started the run"):
        evo.Evolution(config, tmp_path / "r")


@pytest.mark.parametrize("where", ["metric", "build"])
def test_a_ray_pool_refuses_objects_of_this_process_before_it_starts(tmp_path, where):
    def own(*arguments):
        return nearness(*arguments) if arguments else Point()

    config = configured(tmp_path / "f", own)
    if where == "build":
        engine = {"kind": "module", "build": config.tasks[0].metric}
        config = configured(tmp_path / "f", nearness, engine=engine)
    ray = config.model_copy(update={"pool": evo.PoolConfig(kind="ray")})
    founders, _ = open_founders(ray, RunDir(tmp_path / "r"))
    with pytest.raises(evo.EvoError, match=rf"{where}.*exists in this process alone.*kind: local"):
        start_pool(ray, founders, load_tasks(ray.tasks))


BAD = {
    "number": (3, "string"),
    "not a metric": ("toys:TARGET", "'toys:TARGET' is a tuple, not a metric"),
}


@pytest.mark.parametrize(("metric", "message"), BAD.values(), ids=BAD)
def test_what_is_no_metric_is_refused(tmp_path, metric, message):
    with pytest.raises(ValueError, match=message):
        evo.Evolution(configured(tmp_path / "f", metric), tmp_path / "r")


def test_requests_and_scores_of_a_wrong_kind_are_named(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"prompt": "a"}\n')
    files = {"dev": tmp_path / "t.jsonl"}

    def load(**functions):
        metric = evo.Metric(name="own", **functions)
        (found,) = load_tasks((evo.TaskConfig(name="t", metric=metric, files=files),))
        return found.task

    with pytest.raises(evo.EvoError, match=r"line 1: metric .* must give a tuple of requests"):
        load(requests=lambda row, options: row["prompt"], score=lambda *_: 1.0)
    found = load(
        requests=lambda row, options: (evo.Generate(row["prompt"], 4),),
        score=lambda row, outputs, options: torch.tensor(float("nan")),
    )
    with pytest.raises(evo.EvoError, match=r"metric 'own' returned tensor\(nan\) for the example"):
        found.score("dev", ["text"])


def test_rows_follow_the_sample_of_a_format():
    rows = evo.RowFormat('{"story": "Once", "words": ["a"], "length": 3}')
    assert rows.keys == ("story", "words", "length")
    assert rows.problem({"story": "s", "words": [], "length": 1.5}) is None
    assert rows.problem({"story": "s", "words": "ab", "length": 1}) == (
        "'words' must be a list, not a string."
    )
    assert rows.identity({"story": " s ", "words": [], "length": 1}) == ("s",)


def test_a_task_with_a_metric_of_files_asks_and_scores(tmp_path):
    (tmp_path / "t.dev.jsonl").write_text('{"prompt": "2+2=", "answer": "4"}\n')
    metric = evo.Metric(
        name="logprob",
        requests=lambda row, options: (evo.LogLikelihood(row["prompt"], row["answer"]),),
        score=lambda row, outputs, options: evo.ExampleScore(outputs[0].logprob, row["answer"]),
        row_format=evo.RowFormat('{"prompt": "2+2=", "answer": "4"}'),
    )
    config = evo.TaskConfig(name="t", metric=metric, files=tmp_path / "t")
    (found,) = load_tasks((config,))
    assert found.task.requests("dev") == [evo.LogLikelihood("2+2=", "4")]
    scores = found.task.score("dev", [evo.LogLikelihoodOutput(-0.5, True, 1)])
    assert (scores.mean, scores.answers) == (-0.5, ("4",))
