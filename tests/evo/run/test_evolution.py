"""Whole runs on the toy founders: the same everywhere, within budget, with the splits kept apart."""

import json
import math
from collections import Counter
from dataclasses import replace

import pytest
from toy_runs import NAMES, rows, run, tables, task
from toys import toy_config, write_founders

from cluster.founders.checkpoints import CheckpointError, load_founders
from cluster.jobs import Job, JobResult, QueryResult, Timing
from cluster.local_pool import LocalPool
from evo.algorithms import Candidate, Scored, make
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.run.pool import start_pool
from evo.run.setup import load_tasks
from evo.search.evaluator import Evaluator
from evo.search.objective import Objective, WeighedTask
from fitness.engines.base import EngineError
from fitness.examples import TaskError
from operators.recipe import Founder, linear

SPLITS = ("dev", "select", "test")


def founders_of(config):
    return load_founders(config.base, config.founders)


# The same everywhere


@pytest.fixture(scope="module")
def local_runs(tmp_path_factory, founders):
    """(summary, tables) of each algorithm on LocalPool, made once."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            config = toy_config(founders, algorithm={"name": name}, seed=5)
            made[name] = (run(config, folder / "run"), tables(folder / "run"))
        return made[name]

    return get


@pytest.fixture(scope="module", params=[1, 2], ids=["1 host", "2 hosts"])
def ray_pool(request, ray_session, founders):
    """Hosts take seconds to start, so that all algorithms share them."""
    config = toy_config(founders, pool={"kind": "ray", "hosts": request.param})
    pool = start_pool(config, founders_of(config), load_tasks(config.tasks))
    assert pool.hosts == request.param
    yield pool
    pool.close()


@pytest.mark.parametrize("name", NAMES)
def test_ray_gives_what_one_process_gives(name, local_runs, ray_pool, founders, tmp_path):
    summary, expected = local_runs(name)
    config = toy_config(founders, algorithm={"name": name}, seed=5)
    other = run(config, tmp_path / "run", pool=ray_pool)
    got = tables(tmp_path / "run")
    for table, columns in expected.items():
        for column, values in columns.items():
            assert got[table][column] == values, f"{table}.{column}"
    assert other.winner == summary.winner
    assert other.baselines == summary.baselines
    assert (other.evaluations, other.generations, other.stopped_by) == (
        summary.evaluations,
        summary.generations,
        summary.stopped_by,
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_second_run_is_the_same_and_another_seed_is_not(name, local_runs, founders, tmp_path):
    _, expected = local_runs(name)
    for seed in (5, 6):
        config = toy_config(founders, algorithm={"name": name}, seed=seed)
        run(config, tmp_path / str(seed))
        got = tables(tmp_path / str(seed))
        same = got["individuals"]["id"] == expected["individuals"]["id"]
        assert same == (seed == 5)
        assert (got == expected) == (seed == 5)


def test_the_search_gets_better_than_every_founder(local_runs):
    for name in ("recipe_search", "random_search"):
        summary = local_runs(name)[0]
        founders = [b.test for b in summary.baselines if b.kind == "founder"]
        assert summary.winner.test > max(founders)


# Splits


class Spy:
    """Passes everything on and keeps what the algorithm is told."""

    def __init__(self, inner):
        self.inner = inner
        self.told = []

    @property
    def generation(self):
        return self.inner.generation

    @property
    def population(self):
        return self.inner.population

    def ask(self):
        return self.inner.ask()

    def tell(self, evaluations):
        self.told += evaluations
        self.inner.tell(evaluations)


@pytest.mark.parametrize("name", ["genome_plus", "recipe_search"])
def test_the_algorithm_is_told_dev_scores_and_nothing_else(name, tmp_path):
    config = toy_config(tmp_path / "founders", algorithm={"name": name}, seed=1)
    spies = []

    def spied(start):
        spies.append(Spy(make(config.algorithm, start)))
        return spies[0]

    with Evolution(config, tmp_path / "run", algorithm=spied) as evolution:
        for _ in evolution:
            pass
        assert {r["split"] for r in rows(tmp_path / "run")} == {"dev"}
        heard = len(spies[0].told)
        evolution.finish()
        assert len(spies[0].told) == heard
    dev = {r["individual"]: r["score"] for r in rows(tmp_path / "run") if r["split"] == "dev"}
    assert heard
    for scored in spies[0].told:
        assert scored.fitness == dev[scored.candidate.id]


def test_only_finalists_meet_select_and_only_winner_and_baselines_meet_test(tmp_path):
    summary = run(toy_config(tmp_path / "founders", finalists=4), tmp_path / "run")
    evaluations = rows(tmp_path / "run")
    by_split = {s: [r["individual"] for r in evaluations if r["split"] == s] for s in SPLITS}
    dev = {r["individual"]: r["score"] for r in evaluations if r["split"] == "dev"}
    baselines = {b.id for b in summary.baselines if b.id}
    winner = summary.winner.id
    finalists = set(sorted(dev, key=dev.get, reverse=True)[:4])
    assert set(by_split["select"]) == finalists | baselines
    assert set(by_split["test"]) == {winner} | baselines
    assert max(Counter(by_split["test"]).values()) == 1
    assert len(by_split["dev"]) == summary.evaluations == 60


def test_the_winner_is_the_best_finalist_on_select(tmp_path):
    summary = run(toy_config(tmp_path / "founders", finalists=6), tmp_path / "run")
    evaluations = rows(tmp_path / "run")
    dev = {r["individual"]: r["score"] for r in evaluations if r["split"] == "dev"}
    select = {r["individual"]: r["score"] for r in evaluations if r["split"] == "select"}
    finalists = sorted(dev, key=dev.get, reverse=True)[:6]
    winner = max(finalists, key=select.get)
    assert summary.winner.id == winner
    assert (summary.winner.dev, summary.winner.select) == (dev[winner], select[winner])


@pytest.mark.parametrize("splits", [("dev",), ("dev", "select"), ("dev", "test")])
def test_tasks_may_lack_select_or_test(splits, tmp_path):
    config = toy_config(tmp_path / "founders", tasks=[task(splits=splits)])
    summary = run(config, tmp_path / "run")
    winner = summary.winner
    assert winner.dev is not None
    for split in ("select", "test"):
        assert (getattr(winner, split) is None) == (split not in splits)
    assert {r["split"] for r in rows(tmp_path / "run")} == set(splits)
    if "select" not in splits:
        dev = {r["individual"]: r["score"] for r in rows(tmp_path / "run") if r["split"] == "dev"}
        assert winner.id == max(dev, key=dev.get)


# Budgets


def spent(tmp_path, name="recipe_search", **budget):
    config = toy_config(tmp_path / "founders", algorithm={"name": name}, budget=budget)
    return run(config, tmp_path / "run")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 25])
def test_not_one_evaluation_more_than_allowed(name, limit, tmp_path):
    summary = spent(tmp_path, name, evaluations=limit)
    dev = [r["individual"] for r in rows(tmp_path / "run") if r["split"] == "dev"]
    assert len(set(dev)) == len(dev) == summary.evaluations == limit
    assert summary.stopped_by == "evaluations"


def test_generations_are_counted_after_the_founders(tmp_path):
    summary = spent(tmp_path, generations=4)
    assert (summary.generations, summary.stopped_by) == (4, "generations")
    assert summary.evaluations == 3 + 4 * 7


def test_seconds_end_a_run(tmp_path):
    summary = spent(tmp_path, seconds=0.3)
    assert summary.stopped_by == "seconds"
    assert 0.3 <= summary.time.search_s < 5.0
    assert summary.evaluations > 3


def test_a_target_ends_a_run_in_the_generation_that_reaches_it(tmp_path):
    summary = spent(tmp_path, target=0.9, evaluations=300)
    assert summary.stopped_by == "target"
    best = {}
    for row in rows(tmp_path / "run"):
        if row["split"] == "dev":
            best[row["generation"]] = max(best.get(row["generation"], 0.0), row["score"])
    *before, last = (best[g] for g in sorted(best))
    assert last >= 0.9 > max(before)


def test_a_target_that_a_founder_meets_ends_the_run_at_once(tmp_path):
    assert spent(tmp_path, target=0.1).evaluations == 3


class Constant:
    """Founders, then the same candidates for ever; ``fresh`` ones a generation are new."""

    def __init__(self, start, fresh=0, empty=False):
        self.start, self.fresh, self.empty = start, fresh, empty
        self.generation, self.population = -1, ()
        self.number = 0

    def ask(self):
        if self.generation >= 0 and self.empty:
            return []
        batch = [Candidate(f, "founder") for f in self.start.founders]
        for _ in range(self.fresh if self.generation >= 0 else 0):
            self.number += 1
            batch.append(Candidate(linear({self.start.base: 2.0 + self.number}), "useless"))
        return batch

    def tell(self, evaluations):
        ordered = sorted(evaluations, key=lambda s: -s.fitness)
        self.population = tuple(ordered[:3]) or self.population
        self.generation += 1


def test_patience_ends_a_run_that_gets_no_better(tmp_path):
    config = toy_config(tmp_path / "founders", budget={"patience": 3})
    summary = run(config, tmp_path / "run", algorithm=lambda s: Constant(s, fresh=1))
    assert (summary.stopped_by, summary.generations) == ("patience", 3)


@pytest.mark.parametrize("empty", [False, True])
def test_an_algorithm_that_has_run_dry_ends_the_run(empty, tmp_path):
    config = toy_config(tmp_path / "founders")
    summary = run(config, tmp_path / "run", algorithm=lambda s: Constant(s, empty=empty))
    assert (summary.stopped_by, summary.evaluations) == ("no new candidates", 3)


def test_equal_recipes_are_evaluated_once(tmp_path):
    config = toy_config(tmp_path / "founders", budget={"generations": 5})
    run(config, tmp_path / "run", algorithm=lambda s: Constant(s, fresh=2))
    keys = [(r["individual"], r["task"], r["split"]) for r in rows(tmp_path / "run")]
    assert len(keys) == len(set(keys))
    assert sum(split == "dev" for _, _, split in keys) == 3 + 5 * 2
    ids = [r["id"] for r in rows(tmp_path / "run", "individuals")]
    assert len(ids) == len(set(ids))


# The loop in one's own hands


def test_generations_tell_where_the_run_stands(tmp_path):
    progress = []
    with Evolution(toy_config(tmp_path / "f"), tmp_path / "run", observe=progress.append) as mine:
        with pytest.raises(EvoError, match="iterate over the run first"):
            assert mine.best
        with pytest.raises(EvoError, match="iterate over the run first"):
            mine.finish()
        seen = list(mine)
        assert mine.best == seen[-1].best.candidate
    assert [g.number for g in seen] == list(range(len(seen)))
    best = [g.best.fitness for g in seen]
    assert best == sorted(best)
    assert all(math.isfinite(g.mean) for g in seen)
    assert seen[-1].evaluations == 60
    assert [p.evaluations for p in progress] == list(range(1, 61))


def test_one_may_stop_early_and_finish(tmp_path):
    with Evolution(toy_config(tmp_path / "f"), tmp_path / "run") as evolution:
        for generation in evolution:
            if generation.number == 2:
                break
        summary = evolution.finish()
        assert evolution.best.id == summary.winner.id
    assert summary.generations == 2
    assert summary.stopped_by == "caller"
    events = rows(tmp_path / "run", "events")
    assert events[-1]["detail"].startswith("caller; winner")


def test_a_run_that_was_left_early_goes_on_where_it_was(tmp_path):
    config = toy_config(tmp_path / "f")
    with Evolution(config, tmp_path / "broken") as evolution:
        for _ in evolution:
            break
        for generation in evolution:
            if generation.number == 4:
                break
        for _ in evolution:
            pass
        evolution.finish()
    run(config, tmp_path / "whole")
    assert tables(tmp_path / "broken") == tables(tmp_path / "whole")


def test_a_pool_of_ones_own_stays_open(tmp_path):
    config = toy_config(tmp_path / "f", budget={"evaluations": 10})
    pool = start_pool(config, founders_of(config), load_tasks(config.tasks))
    first = run(config, tmp_path / "1", pool=pool)
    second = run(config, tmp_path / "2", pool=pool)
    assert first.winner == second.winner
    assert isinstance(pool, LocalPool)
    assert pool.stats()[0].jobs > 20


def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_is(tmp_path):
    config = toy_config(tmp_path / "f", budget={"evaluations": 10})
    run(config, tmp_path / "run")
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.suffix}
    with pytest.raises(EvoError, match="there is a run already"):
        Evolution(config, tmp_path / "run")
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.suffix} == before


def test_a_run_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(OSError, match="run"):
        Evolution(toy_config(tmp_path / "f"), tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


# Failures


def test_failing_candidates_are_rows_and_the_run_goes_on(tmp_path):
    config = toy_config(tmp_path / "f", tasks=[task("broken_for_b")])
    summary = run(config, tmp_path / "run")
    failed = [r for r in rows(tmp_path / "run") if r["status"] == "failed"]
    ids = {r["id"]: r["description"] for r in rows(tmp_path / "run", "individuals")}
    assert {ids[r["individual"]] for r in failed} == {"b"}
    for row in failed:
        assert row["score"] is None
        assert row["standard_error"] is None
        assert row["examples"] == 0
        assert "no fitness for b" in row["error"]
    assert summary.evaluations == 60
    b = next(e for e in summary.baselines if e.name == "b")
    assert (b.dev, b.select, b.test, b.test_se) == (None, None, None, None)
    assert [e["kind"] for e in rows(tmp_path / "run", "events")].count("failed") == 1
    first = [r for r in rows(tmp_path / "run", "population") if r["generation"] == 0]
    assert [r["fitness"] is None for r in first] == [False, False, True]


def founders_like_b(folder):
    """Three founders on which toys:broken_for_b raises."""
    paths = write_founders(folder, {n: (float(i), 1.0, 0.0, 0.5) for i, n in enumerate("xyz")})
    return {name: paths[name] for name in "xyz"}


@pytest.mark.parametrize("name", NAMES)
def test_founders_that_all_fail_end_the_run_with_the_reason(name, tmp_path):
    config = toy_config(
        tmp_path / "f",
        founders=founders_like_b(tmp_path / "like_b"),
        tasks=[task("broken_for_b")],
        algorithm={"name": name},
    )
    with pytest.raises(EvoError, match=r"every founder failed.*no fitness for b"):
        run(config, tmp_path / "run")
    assert [r["status"] for r in rows(tmp_path / "run")] == ["failed"] * 3


def test_a_founder_that_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    import torch
    from safetensors.torch import save_file

    config = toy_config(tmp_path / "f")
    save_file({"x": torch.zeros(5)}, config.founders["b"])
    with pytest.raises(ValueError, match=r"'x' is float32\[4\].*float32\[5\]"):
        Evolution(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_founder_called_base_is_itself_and_not_the_base(tmp_path):
    paths = write_founders(tmp_path / "f")
    config = toy_config(tmp_path / "f", founders={"base": paths["a"], "b": paths["b"]})
    summary = run(config, tmp_path / "run")
    by_name = {b.name: b.dev for b in summary.baselines}
    other = run(toy_config(tmp_path / "f"), tmp_path / "other")
    expected = {b.name: b.dev for b in other.baselines}
    assert by_name["base"] == expected["a"]


def test_the_base_may_be_a_founder_too(tmp_path):
    paths = write_founders(tmp_path / "f")
    founders = {n: paths[n] for n in ("base", "a")}
    summary = run(toy_config(tmp_path / "f", founders=founders), tmp_path / "run")
    assert [b.name for b in summary.baselines][:2] == ["base", "a"]


def test_a_function_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"has no 'nearnes'\. Did you mean nearness"):
        Evolution(toy_config(tmp_path / "f", tasks=[task("nearnes")]), tmp_path / "run")
    engine = {"kind": "module", "build": "toys:bild"}
    with pytest.raises(ValueError, match=r"has no 'bild'\. Did you mean build"):
        Evolution(toy_config(tmp_path / "f", engine=engine), tmp_path / "run")


def test_a_changed_founder_is_noticed_on_export(tmp_path):
    config = toy_config(tmp_path / "f", budget={"evaluations": 5})
    with Evolution(config, tmp_path / "run") as evolution:
        list(evolution)
        config.founders["a"].write_bytes(config.founders["b"].read_bytes())
        with pytest.raises(CheckpointError, match=r"a\.safetensors.*digests differ"):
            evolution.save("best", tmp_path / "out")


# Summary


def test_the_summary_says_what_the_issue_lists(tmp_path):
    config = toy_config(
        tmp_path / "f",
        seed=9,
        budget={"evaluations": 30},
        baselines={"random_search": True, "static": ["task_arithmetic", "ties"]},
    )
    returned = run(config, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary == json.loads(json.dumps(returned.as_json()))
    winner = summary["winner"]
    assert {"id", "dev", "select", "test", "test_se"} <= winner.keys()
    assert len(winner["id"]) == 64
    assert all(isinstance(winner[k], float) for k in ("dev", "select", "test", "test_se"))
    kinds = Counter(b["kind"] for b in summary["baselines"])
    assert kinds == {"founder": 3, "average": 1, "random_search": 1, "static": 2}
    for baseline in summary["baselines"]:
        assert {"name", "kind", "test", "test_se"} <= baseline.keys()
        assert 0.0 < baseline["test"] <= 1.0
        assert baseline["test_se"] >= 0.0
    assert summary["evaluations"] == 30
    assert summary["seed"] == 9
    assert summary["seconds"] > 0.0
    assert {"python", "torch", "ray", "evo-models"} <= summary["versions"].keys()
    shares = [v for k, v in summary["time"].items() if k.endswith("_share")]
    assert sum(shares) == pytest.approx(1.0, abs=0.05)
    assert min(shares) >= 0.0
    assert summary["peak_memory_bytes"]["coordinator"] > 10**7


def test_baselines_spend_their_own_budget(tmp_path):
    config = toy_config(
        tmp_path / "f", budget={"evaluations": 30}, baselines={"random_search": True}
    )
    run(config, tmp_path / "run")
    random = rows(tmp_path / "run" / "baselines" / "random_search")
    assert len({r["individual"] for r in random if r["split"] == "dev"}) == 30
    run(toy_config(tmp_path / "f", budget={"evaluations": 30}), tmp_path / "plain")
    searched = tables(tmp_path / "plain")["individuals"]["id"]
    assert [r["id"] for r in rows(tmp_path / "run", "individuals")][: len(searched)] == searched


def test_the_average_is_scored_as_it_is(tmp_path):
    summary = run(toy_config(tmp_path / "f"), tmp_path / "run")
    average = next(b for b in summary.baselines if b.kind == "average")
    x = [1 / 3, 1 / 3, -1 / 3, 0.5 / 3]
    target = [t + 0.02 for t in (0.9, 0.4, -0.7, 0.2)]
    near = [math.exp(-((a - b) ** 2)) for a, b in zip(x, target, strict=True)]
    assert average.test == pytest.approx(sum(near) / 4, abs=1e-6)


# Several tasks


def test_fitness_is_the_weighted_mean_of_the_tasks(tmp_path):
    tasks = [task(weight=3.0), task("slow_for_a", name="other", weight=1.0)]
    config = toy_config(tmp_path / "f", tasks=tasks, budget={"evaluations": 8})
    run(config, tmp_path / "run")
    fitness = {r["individual"]: r["fitness"] for r in rows(tmp_path / "run", "population")}
    by_task = {
        (r["individual"], r["task"]): r["score"]
        for r in rows(tmp_path / "run")
        if r["split"] == "dev"
    }
    assert fitness
    for individual, value in fitness.items():
        expected = 0.75 * by_task[individual, "toy"] + 0.25 * by_task[individual, "other"]
        assert value == pytest.approx(expected)


def test_lower_is_better_counts_negative_and_errors_add_in_squares(tmp_path):
    (tmp_path / "text.jsonl").write_text('{"text": "abc"}\n')
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    config = toy_config(
        tmp_path / "f",
        tasks=[
            {"name": "t", "metric": "bits_per_byte", "files": {"dev": tmp_path / "text.jsonl"}},
            {"name": "p", "files": {"dev": tmp_path / "pairs.jsonl"}, "weight": 3.0},
        ],
    )
    tasks = load_tasks(config.tasks)
    assert [t.signed_weight for t in tasks] == [-1.0, 3.0]
    measure = Objective(tasks).combine({"t": (2.0, 0.4), "p": (0.5, 0.2)})
    assert measure.fitness == pytest.approx((3 * 0.5 - 2.0) / 4)
    assert measure.standard_error == pytest.approx(math.hypot(3 * 0.2, 0.4) / 4)
    assert measure.tasks == {"t": (2.0, 0.4), "p": (0.5, 0.2)}


class CountingPool:
    """Scores by founder's name, and counts."""

    hosts, pending = 1, 0

    def __init__(self):
        self.queue, self.jobs = [], []

    def submit(self, job):
        job = replace(job, key=len(self.jobs))
        self.queue.append(job)
        self.jobs.append(job)
        return job.key

    def wait(self, keys):
        job: Job = self.queue.pop()  # the last first: order of completion must not matter
        value = float(ord(job.recipe.name))
        results = tuple(QueryResult(a, (value,), (None,), value, 0.0) for a in job.queries)
        return JobResult(job, results, "here", Timing())


def test_results_come_in_the_order_asked_and_once_for_each_recipe_and_split(tmp_path):
    config = toy_config(tmp_path / "f")
    (task,) = load_tasks(config.tasks)
    pool = CountingPool()
    evaluator = Evaluator(pool, Objective((WeighedTask(task.task, 2.0),)))
    a, b, c = (Founder(n, "0") for n in "abc")
    heard = []
    first = evaluator.run([b, a, b], "dev", on_result=heard.append)
    assert [r.job.recipe for r in first] == [b, a, b]
    second = evaluator.run([c, a], "dev", on_result=heard.append)
    assert [evaluator.objective.score(r).fitness for r in second] == [99.0, 97.0]
    evaluator.run([a], "test")
    assert [(j.recipe.name, j.queries[0].split) for j in pool.jobs] == [
        ("b", "dev"),
        ("a", "dev"),
        ("c", "dev"),
        ("a", "test"),
    ]
    assert len(heard) == 3


def test_a_scored_is_nan_where_the_candidate_failed(tmp_path):
    config = toy_config(tmp_path / "f", tasks=[task("broken_for_b")])
    spies = []
    run(
        config,
        tmp_path / "run",
        algorithm=lambda s: spies.append(Spy(make(config.algorithm, s))) or spies[0],
    )
    failed = [s for s in spies[0].told if math.isnan(s.fitness)]
    assert [s.candidate.recipe.name for s in failed] == ["b"]
    assert isinstance(failed[0], Scored)


def test_a_metric_for_language_models_fails_on_a_module_with_its_reason(tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    config = toy_config(
        tmp_path / "f", tasks=[{"name": "p", "files": {"dev": tmp_path / "pairs.jsonl"}}]
    )
    with pytest.raises((EvoError, EngineError), match="needs a language model"):
        run(config, tmp_path / "run")


@pytest.mark.parametrize("evaluations", range(4, 24))
def test_every_evaluation_is_committed_wherever_the_budget_ends(evaluations, tmp_path):
    # GENOME+ asks twice a generation: a budget may end between the two.
    config = toy_config(
        tmp_path / "f",
        algorithm={"name": "genome_plus", "population": 4},
        budget={"evaluations": evaluations},
    )
    with Evolution(config, tmp_path / "run") as evolution:
        last = list(evolution)[-1]
        assert last.evaluations == evolution.lineage.evaluations.num_rows == evaluations


# What would be found too late


def test_the_same_model_under_two_names_is_refused(tmp_path):
    config = toy_config(tmp_path / "f")
    config.founders["c"].write_bytes(config.founders["a"].read_bytes())
    with pytest.raises(CheckpointError, match="founders 'a' and 'c' hold the same tensors"):
        Evolution(config, tmp_path / "run")


def test_a_founder_with_nan_is_refused_by_tensor(tmp_path):
    config = toy_config(tmp_path / "f")
    write_founders(tmp_path / "f", {"a": (math.nan, 0.0, 0.0, 0.0)})
    with pytest.raises(CheckpointError, match="tensor 'x' holds NaN"):
        Evolution(config, tmp_path / "run")


def test_more_layer_groups_than_layers_are_refused(tmp_path):
    config = toy_config(tmp_path / "f", algorithm={"name": "recipe_search", "layer_groups": 2})
    with pytest.raises(EvoError, match="2 groups, but the models have 0 layers"):
        Evolution(config, tmp_path / "run")


def test_tasks_may_not_report_on_what_another_task_searches_on(tmp_path):
    for name in ("x", "y"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": name, "answer": "1"}))
    x, y = tmp_path / "x.jsonl", tmp_path / "y.jsonl"
    tasks = [
        {"name": "one", "files": {"dev": x, "test": y}},
        {"name": "two", "files": {"dev": y, "test": x}},
    ]
    config = toy_config(tmp_path / "f", tasks=tasks)
    with pytest.raises(TaskError, match=r"'one' .test, line 1. and 'two' .dev, line 1."):
        Evolution(config, tmp_path / "run")


def test_a_device_that_is_not_there_is_refused_and_the_folder_stays_free(tmp_path):
    engine = {"kind": "module", "build": "toys:build", "device": "cuda"}
    with pytest.raises(EngineError, match="no CUDA device here"):
        Evolution(toy_config(tmp_path / "f", engine=engine), tmp_path / "run")
    run(toy_config(tmp_path / "f"), tmp_path / "run")


def test_random_search_gets_what_the_search_used(tmp_path):
    config = toy_config(
        tmp_path / "f", budget={"patience": 1, "evaluations": 60}, baselines={"random_search": True}
    )
    summary = run(config, tmp_path / "run")
    row = next(b for b in summary.baselines if b.kind == "random_search")
    assert row.evaluations == summary.evaluations < 60
