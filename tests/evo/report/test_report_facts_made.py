"""What a report says of lineages written by hand: bounds, other metrics, prompts, paths, layouts."""

import json
from itertools import pairwise

import numpy as np
import pytest
from lineages import Child, Written, founder, report_of

from evo.report.sections.ancestry import crossings, laid_out
from evo.report.sections.fitness import thinned
from operators.recipe import Route, Step, linear

A, B = founder("a"), founder("b")
TASK = {"name": "t", "metric": "accuracy", "weight": 1.0}


def mixed(i):
    return linear({A: 1.0, B: float(i + 1)})


def written(folder, tasks=(TASK,), **begin):
    run = Written(folder / "run", tasks)
    run.begin(**begin)
    return run


def test_a_lower_score_that_is_better_counts_as_better(tmp_path):
    tasks = [
        {"name": "bits", "metric": "bits_per_byte", "weight": 3.0},
        {"name": "right", "metric": "accuracy", "weight": 1.0},
    ]
    run = written(tmp_path, tasks)
    first = Child(A, {"bits": [2.0, 4.0, 3.0], "right": [1.0, 0.0]})
    second = Child(B, {"bits": [5.0, 5.0, 5.0], "right": [1.0, 1.0]})
    child = Child(mixed(0), {"bits": [1.0, 4.5, 3.0], "right": [1.0, 1.0]}, "mix", [A.id, B.id])
    run.generation(0, [first, second], [A, B])
    run.generation(1, [child], [child.recipe, A])
    says = report_of(run.run_dir)
    head = says["headline"]
    assert (head["winner"]["id"], head["founder"]["name"]) == (child.recipe.id, "a")
    assert head["winner_score"] == pytest.approx(-0.75 * 8.5 / 3 + 0.25)
    assert head["difference"] == pytest.approx(0.75 * 0.5 / 3 + 0.25 * 0.5)
    assert says["fitness"]["best"] == pytest.approx([-0.75 * 3 + 0.125, -0.75 * 8.5 / 3 + 0.25])
    changed = {(r["task"], r["example"]): r["change"] for r in says["changed"]["examples"]}
    assert changed == {("bits", 0): "fixed", ("bits", 1): "broken", ("right", 1): "fixed"}
    assert says["changed"]["both_right"] == says["changed"]["both_wrong"] == 1
    assert says["run"]["tasks"][0]["weight"] == -3.0
    assert "lower score is better" in head["note"]
    assert "worse on" not in head["note"]
    (operator,) = says["operators"]
    assert (operator["improved"], operator["survived"], operator["survival"]) == (1, 1, 1.0)


ROWS = [{"prompt": f"{i}+1=", "answer": str(i + 1)} for i in range(4)]


def asked(tmp_path, rows_now=None):
    path = tmp_path / "t.dev.jsonl"
    tasks = [{**TASK, "metric": "exact_match", "files": {"dev": str(path)}, "limit": {"dev": 3}}]
    run = written(tmp_path, tasks, examples={"t.dev": ROWS[:3]})
    path.write_text("\n".join(json.dumps(r) for r in rows_now or ROWS))
    run.generation(0, [Child(A, {"t": [1, 0, 0]}, answers=["1", "1", None])], [A])
    child = Child(mixed(0), {"t": [1, 1, 0]}, "mix", [A.id], ["1", "2", None])
    run.generation(1, [child], [child.recipe])
    (example,) = report_of(run.run_dir)["changed"]["examples"]
    return example


def test_a_changed_example_comes_with_what_was_asked_and_expected(tmp_path):
    assert asked(tmp_path) == {
        "task": "t",
        "example": 1,
        "change": "fixed",
        "was": "1",
        "now": "2",
        "was_value": 0.0,
        "now_value": 1.0,
        "prompt": "1+1=",
        "expected": "2",
    }


def test_a_file_that_has_changed_since_gives_no_prompts(tmp_path):
    example = asked(tmp_path, [{"prompt": "other", "answer": "x"}] * 4)
    assert example["prompt"] is example["expected"] is None
    assert example["now"] == "2"


def test_a_path_is_its_models_and_steps(tmp_path):
    route = Route(A, (Step(B, 1, 1.0), Step(A, 0, 0.5), Step(B, 1, 1.0)), A)
    run = written(tmp_path)
    run.generation(0, [Child(A, {"t": [0, 0]}), Child(B, {"t": [0, 0]})], [A, B])
    run.generation(1, [Child(route, {"t": [1, 0]}, "swap", [A.id])], [route])
    says = report_of(run.run_dir)
    path = says["path"]
    assert [m["name"] for m in path["models"]] == ["a", "b"]
    assert (path["embed"], path["head"], path["layers"]) == (0, 0, 2)
    assert [(s["model"], s["layer"], s["scale"]) for s in path["steps"]] == [
        *((1, 1, 1.0), (0, 0, 0.5), (1, 1, 1.0))
    ]
    assert any("repeated" in note for note in path["notes"])
    assert says["shares"] is None
    # b is in the path, though only a is recorded as a parent.
    nodes = [n["name"] for n in says["family"]["nodes"]]
    assert {(nodes[p], nodes[c]) for p, c in says["family"]["edges"]} == {
        *(("a", route.id[:12]), ("b", route.id[:12]))
    }


def test_a_path_over_merged_models_has_the_shares_of_each_step(tmp_path):
    route = Route(A, (Step(mixed(0), 1, 1.0), Step(B, 0, 1.0)), A)
    run = written(tmp_path)
    run.generation(0, [Child(A, {"t": [0, 0]}), Child(B, {"t": [0, 0]})], [A, B])
    run.generation(1, [Child(route, {"t": [1, 0]}, "weights", [A.id])], [route])
    says = report_of(run.run_dir)
    assert [m["name"] for m in says["path"]["models"]] == ["a", mixed(0).id[:12], "b"]
    assert says["shares"]["groups"] == ["embedding", "step 0: layer 1", "step 1: layer 0", "head"]
    assert says["shares"]["founders"] == ["a", "b"]
    assert says["shares"]["share"] == [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [1.0, 0.0]]


def test_a_task_on_which_the_winner_loses_is_named(tmp_path):
    run = written(tmp_path, [{**TASK, "name": "up", "weight": 3.0}, {**TASK, "name": "down"}])
    run.generation(0, [Child(A, {"up": [0.0], "down": [0.75]})], [A])
    child = Child(mixed(0), {"up": [1.0], "down": [0.25]}, "mix", [A.id])
    run.generation(1, [child], [child.recipe])
    note = report_of(run.run_dir)["headline"]["note"]
    assert "The winner is worse on down (0.250 against 0.750)." in note


def test_what_was_fixed_and_what_was_broken_take_turns(tmp_path):
    run = written(tmp_path)
    run.generation(0, [Child(A, {"t": [1, 0, 0, 0, 0, 1]})], [A])
    child = Child(mixed(0), {"t": [0, 1, 1, 1, 1, 0]}, "mix", [A.id])
    run.generation(1, [child], [child.recipe])
    changed = report_of(run.run_dir)["changed"]["examples"]
    assert [r["change"] for r in changed] == [*(("fixed", "broken") * 2), "fixed", "fixed"]
    assert [r["example"] for r in changed] == [1, 0, 2, 5, 3, 4]


def test_a_founder_that_enters_late_is_in_the_family(tmp_path):
    run = written(tmp_path)
    run.generation(0, [Child(A, {"t": [0, 0, 0]}), Child(B, {"t": [0, 0, 0]})], [A, B])
    first = Child(linear({A: 0.5}), {"t": [1, 0, 0]}, "mutation", [A.id])
    run.generation(1, [first], [first.recipe])
    second = Child(linear({A: 0.5, B: 0.5}), {"t": [1, 1, 0]}, "mutation", [first.recipe.id])
    run.generation(2, [second], [second.recipe])
    family = report_of(run.run_dir)["family"]
    names = {n["id"]: n["name"] for n in family["nodes"]}
    edges = {tuple(family["nodes"][at]["id"] for at in edge) for edge in family["edges"]}
    assert set(names.values()) >= {"a", "b"}
    assert edges == {
        (A.id, first.recipe.id),
        (first.recipe.id, second.recipe.id),
        (B.id, second.recipe.id),
    }


def test_everything_is_bounded_and_what_is_left_out_is_counted(tmp_path):
    """110 generations of two, each child of both before: of everything more than a page can show."""
    run = written(tmp_path)
    nothing = {"t": [0] * 250}
    run.generation(0, [Child(A, nothing), Child(B, nothing)], [A, B])
    parents = [A.id, B.id]
    for number in range(1, 111):
        pair = [mixed(2 * number + k) for k in (0, 1)]
        values = {"t": [1] * (2 * number) + [0] * (250 - 2 * number)}
        run.generation(
            number,
            [Child(r, values, "mix", parents, host=f"host-{r.id[:9]}", tokens=10) for r in pair],
            pair,
        )
        parents = [r.id for r in pair]
        for kind in ("failed", "retry") if number == 50 else ["failed"] * 6:
            run.event(kind, number)
    run.commit("final")
    says = report_of(run.run_dir)
    family = says["family"]
    assert (len(family["nodes"]), family["left_out"]) == (150, 2 * 110 + 1 - 150)
    assert {"a", "b"} <= {n["name"] for n in family["nodes"]}
    generations = {n["generation"] for n in family["nodes"]}
    assert generations == {0, *range(36, 111)}  # the winner, its 73 nearest pairs and one more
    assert len(says["events"]["rows"]) == 500
    assert says["events"]["left_out"] == 109 * 6 + 2 - 500
    assert says["events"]["counts"] == {"failed": 109 * 6 + 1, "retry": 1}
    kinds = [r["kind"] for r in says["events"]["rows"]]
    assert kinds.count("retry") == 1
    times = [r["time"] for r in says["events"]["rows"]]
    assert times == sorted(times)
    assert says["changed"]["fixed"] == 220
    assert (len(says["changed"]["examples"]), says["changed"]["left_out"]) == (200, 20)
    assert len(says["diversity"]["generation"]) == 100
    hosts = says["cost"]["hosts"]
    assert (len(hosts), hosts[-1]["host"]) == (101, "121 more")
    assert sum(h["tokens"] or 0 for h in hosts) == says["cost"]["tokens"] == 2200
    assert sum(h["evaluations"] for h in hosts) == says["cost"]["evaluations"] == 222


def test_one_member_disagrees_with_nobody_and_failed_ones_are_left_out(tmp_path):
    run = written(tmp_path)
    run.generation(0, [Child(A, {"t": [1, 0]}), Child(B, None)], [A, B])
    run.generation(1, [Child(mixed(0), {"t": [1, 1]}, "mix", [A.id, B.id])], [A, mixed(0), B])
    says = report_of(run.run_dir)
    assert says["diversity"] == {
        "generation": [0, 1],
        "disagreement": [None, 0.5],
        "distinct": [1.0, 1.0],
    }
    assert says["operators"][0]["improved"] == 1  # over the parent that has a fitness
    assert says["run"]["failed"] == 1


def test_models_that_were_scored_on_other_numbers_of_examples_are_not_compared(tmp_path):
    run = written(tmp_path)
    run.generation(0, [Child(A, {"t": [1, 0]}), Child(B, {"t": [0]})], [A, B])
    run.generation(1, [Child(mixed(0), {"t": [1, 1, 1]}, "mix", [A.id])], [mixed(0), A])
    says = report_of(run.run_dir)
    assert says["diversity"]["disagreement"] == [None, None]
    assert says["headline"]["difference"] == 0.5
    assert says["headline"]["low"] is says["changed"] is None


@pytest.mark.parametrize("count", [5, 400, 401, 5000])
@pytest.mark.parametrize("every", [1, 7, 900])
def test_a_thinned_curve_keeps_its_ends_and_improvements(count, every):
    best = np.floor(np.arange(count) / every)
    kept = thinned(best, 400)
    assert len(kept) == min(count, 400)
    assert (np.diff(kept) > 0).all()
    assert (kept[0], kept[-1]) == (0, count - 1)
    improvements = np.flatnonzero(np.diff(best) > 0) + 1
    if len(improvements) < 399:
        assert set(improvements) <= set(kept)


def test_lines_that_need_not_cross_do_not():
    """Two chains side by side whose names are in opposite order from one generation to the next."""
    generation = {f"{c}{g}": g for g in range(6) for c in "ab"}
    names = {
        "x": [f"{'ab'[g % 2]}{g}" for g in range(6)],
        "y": [f"{'ba'[g % 2]}{g}" for g in range(6)],
    }
    edges = [e for chain in names.values() for e in pairwise(chain)]
    naive = {n: 0.25 if n[0] == "a" else 0.75 for n in generation}
    lanes = laid_out(generation, edges)
    assert crossings(generation, edges, naive) == 5
    assert crossings(generation, edges, lanes) == 0
    assert laid_out(dict(reversed(generation.items())), edges) == lanes
