"""Extension: a run continues with a larger budget, and is the run that had this budget from the start."""

import json

import pytest
from interrupted_runs import Stop, config_for, pool_for
from toy_runs import rows, run
from warm_evo import evo as evo_command

import evo.lineage
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.report.facts import facts
from evo.report.status import read_status
from evo.run_dir import RunDir

STEADY = {"loop": {"kind": "steady_state", "in_flight": 3}}
KINDS = {
    "recipe_search": {},
    "genome_plus": {},
    "random_search": {},
    "steady recipe_search": STEADY,
}


def config(founders, kind, evaluations):
    more = {"baselines": {"random_search": True}} | KINDS[kind]
    made = config_for(founders, kind.split()[-1], **more)
    return made.model_copy(
        update={"budget": made.budget.model_copy(update={"evaluations": evaluations})}
    )


def extend(run_dir, evaluations, **options):
    with Evolution.extend(run_dir, evaluations=evaluations, **options) as evolution:
        for _ in evolution:
            pass
        return evolution.finish()


def searched(run_dir):
    """What the search did: individuals, their dev scores, and survivors, in the order recorded."""
    lineage = evo.lineage.open(run_dir)
    best = lineage.best_so_far()
    scores = zip(*(best.column(c).to_pylist() for c in ("individual", "fitness")), strict=True)
    return list(scores), lineage.population.to_pylist()


def known(run_dir):
    found = rows(run_dir, "individuals")
    ids = [row["id"] for row in found]
    assert len(ids) == len(set(ids))
    return {row["id"]: (row["operator"], row["parents"]) for row in found}


def result(summary):
    return summary.winner, summary.baselines, summary.evaluations, summary.stopped_by


def extensions(run_dir):
    return [r["detail"] for r in rows(run_dir, "events") if r["kind"] == "extended"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, founders):
    """The run of each kind that had 50 evaluations from the start: its summary and its folder."""
    made = {}

    def get(kind):
        if kind not in made:
            run_dir = tmp_path_factory.mktemp("whole") / "run"
            made[kind] = run(config(founders, kind, 50), run_dir), run_dir
        return made[kind]

    return get


@pytest.mark.parametrize("first", [21, 24, 30])
@pytest.mark.parametrize("kind", KINDS)
def test_an_extended_run_is_the_one_that_had_this_budget(kind, first, whole, founders, tmp_path):
    summary, run_dir = whole(kind)
    before = run(config(founders, kind, first), tmp_path / "run")
    evaluated = {(r["individual"], r["split"]): r["score"] for r in rows(tmp_path / "run")}
    extended = extend(tmp_path / "run", 50)
    assert result(extended) == result(summary)
    assert searched(tmp_path / "run") == searched(run_dir)
    assert known(tmp_path / "run").items() >= known(run_dir).items()
    now = {(r["individual"], r["split"]): r["score"] for r in rows(tmp_path / "run")}
    assert now.items() >= evaluated.items()  # nothing that was committed is lost
    assert (before.looks_at_test, extended.looks_at_test) == (1, 2)
    assert extensions(tmp_path / "run") == [
        f"budget.evaluations {first} -> 50; test is scored again: look 2"
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_was_committed_is_evaluated_again(kind, founders, tmp_path):
    run(config(founders, kind, 24), tmp_path / "run")
    known_before = {(r["individual"], r["split"]) for r in rows(tmp_path / "run")}
    pool = pool_for(config(founders, kind, 24), tmp_path / "run", 10**6)
    extended = extend(tmp_path / "run", 50, pool=pool)
    table = rows(tmp_path / "run")
    keys = [(r["individual"], r["split"]) for r in table]
    assert extended.evaluations == 50
    assert len(keys) == len(set(keys))
    assert known_before <= set(keys)
    new = len(set(keys) - known_before)
    random_search = 26  # more individuals of the baseline, in a lineage of its own
    assert pool.taken <= new + random_search


@pytest.mark.parametrize("after", [0, 1, 5, 17, 26, 30, 40])
@pytest.mark.parametrize("kind", ["recipe_search", "steady recipe_search"])
def test_an_extension_may_be_stopped_and_resumed(kind, after, whole, founders, tmp_path):
    summary, run_dir = whole(kind)
    made, folder = config(founders, kind, 24), tmp_path / "run"
    run(made, folder)
    with pytest.raises(Stop):
        extend(folder, 50, pool=pool_for(made, folder, after))
    status = read_status(folder)
    assert (status.state, status.budget) == ("stopped", 50)
    with Evolution.resume(folder) as evolution:
        for _ in evolution:
            pass
        resumed = evolution.finish()
    assert result(resumed) == result(summary)
    assert searched(folder) == searched(run_dir)
    assert resumed.looks_at_test == 2


@pytest.mark.parametrize("after", [5, 24, 27, 40])
@pytest.mark.parametrize("kind", ["recipe_search", "steady recipe_search"])
def test_a_stopped_run_can_be_extended(kind, after, whole, founders, tmp_path):
    summary, run_dir = whole(kind)
    made, folder = config(founders, kind, 24), tmp_path / "run"
    with pytest.raises(Stop):
        run(made, folder, pool=pool_for(made, folder, after))
    with pytest.raises(Stop):
        extend(folder, 50, pool=pool_for(made, folder, 3))
    with Evolution.resume(folder) as evolution:
        for _ in evolution:
            pass
        extended = evolution.finish()
    assert result(extended) == result(summary)
    assert searched(folder) == searched(run_dir)
    assert extended.looks_at_test == 1  # test had not been scored


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_can_be_extended_twice(kind, whole, founders, tmp_path):
    summary, run_dir = whole(kind)
    run(config(founders, kind, 21), tmp_path / "run")
    extend(tmp_path / "run", 33)
    extended = extend(tmp_path / "run", 50)
    assert result(extended) == result(summary)
    assert searched(tmp_path / "run") == searched(run_dir)
    assert extended.looks_at_test == 3
    assert len(extensions(tmp_path / "run")) == 2


def test_a_search_that_was_left_early_can_be_extended(whole, founders, tmp_path):
    for kind in ("recipe_search", "steady recipe_search"):
        summary, run_dir = whole(kind)
        folder = tmp_path / kind
        with Evolution(config(founders, kind, 50), folder) as evolution:
            for generation in evolution:
                if generation.evaluations > 20:
                    break
            assert evolution.finish().stopped_by == "caller"
        assert result(extend(folder, 50)) == result(summary)
        assert searched(folder) == searched(run_dir)


def test_a_budget_that_is_spent_already_is_refused(founders, tmp_path):
    run(config(founders, "random_search", 24), tmp_path / "run")
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for evaluations in (10, 24):
        with pytest.raises(EvoError, match=f"{evaluations}, but the run has 24 evaluations"):
            Evolution.extend(tmp_path / "run", evaluations=evaluations)
    now = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert {p.name for p in files if files[p] != now[p]} <= {"lock"}


def test_a_run_that_ended_for_another_reason_is_refused(founders, tmp_path):
    made = config(founders, "random_search", None)
    made = made.model_copy(update={"budget": type(made.budget)(generations=2)})
    run(made, tmp_path / "run")
    with pytest.raises(EvoError, match=r"stopped by budget\.generations"):
        Evolution.extend(tmp_path / "run", evaluations=500)


def test_the_report_says_how_often_test_was_looked_at(founders, tmp_path):
    folder = tmp_path / "run"
    run(config(founders, "recipe_search", 24), folder)
    assert "at test" not in facts(evo.lineage.open(folder))["headline"]["note"]
    extend(folder, 50)
    told = facts(evo.lineage.open(folder))
    assert "look 2 at test" in told["headline"]["note"]
    assert told["problem"] is None
    assert told["run"]["generations"] == len({r["generation"] for r in rows(folder)})
    assert told["run"]["evaluations"] == 50


def test_a_tracker_gets_both_ends(founders, tmp_path):
    class Tracker:
        def __init__(self):
            self.evaluations, self.looks = [], []

        def start(self, run):
            return "one"

        def generation(self, generation):
            self.evaluations.append(generation.evaluations)

        def finish(self, summary):
            self.looks.append(summary.looks_at_test)

        def close(self):
            pass

    tracker, folder = Tracker(), tmp_path / "run"
    run(config(founders, "recipe_search", 24), folder, callbacks=[tracker])
    extend(folder, 50, callbacks=[tracker])
    assert tracker.looks == [1, 2]
    assert tracker.evaluations == sorted(set(tracker.evaluations))
    assert tracker.evaluations[-1] == 50


def test_resume_extends_on_the_command_line(founders, tmp_path):
    folder = tmp_path / "run"
    run(config(founders, "random_search", 24), folder)
    refused = evo_command("resume", folder, "--set", "budget.evaluations=20")
    assert refused.returncode == 2
    assert "budget.evaluations: 20, but the run has 24 evaluations already" in refused.stderr
    done = evo_command("resume", folder, "--set", "budget.evaluations=40")
    assert done.returncode == 0, done.stderr
    assert "look 2 at test" in " ".join(done.stdout.split())
    assert "evaluations 40/40" in done.stderr
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["evaluations"], summary["looks_at_test"]) == (40, 2)
    assert RunDir(folder).read_config(check_files=False).budget.evaluations == 40


@pytest.mark.parametrize("evaluations", [50.5, "50", True])
def test_a_budget_that_is_no_whole_number_changes_nothing(evaluations, founders, tmp_path):
    run(config(founders, "genome_plus", 30), tmp_path / "run")
    before = RunDir(tmp_path / "run").config_path.read_bytes()
    with pytest.raises(EvoError, match=r"budget\.evaluations: expected a whole number"):
        extend(tmp_path / "run", evaluations)
    assert RunDir(tmp_path / "run").config_path.read_bytes() == before
