"""What people ask of a lineage: family, curve, shares, comparison; of one run and of many."""

import json
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from toys import FOUNDERS, toy_config
from warm_evo import evo as evo_command

import evo.lineage
from evo.algorithms import Candidate
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.final.static_merges import static_grid
from evo.lineage.ancestry.graph import KeyIndex, ParentGraph, keys_of
from evo.lineage.ancestry.shares import founder_shares
from evo.run.recovery import set_damage_aside
from evo.run_dir import RunDir
from operators.build.materialize import Materializer
from operators.merge import merge
from operators.recipe import Founder, Noise, Route, Step, linear, walk
from operators.recipe.coefficients import Grouped, Rule
from operators.tensors.weights import allocate, weights_of

A, B, C = (Founder(name, name * 64) for name in "abc")


def make_run(folder, name="run", **changes):
    config = toy_config(folder / "f", **changes)
    with Evolution(config, folder / name) as evolution:
        list(evolution)
        evolution.finish()
    return folder / name


TWO_TASKS = [
    {
        "name": "near",
        "metric": "toys:nearness",
        "data": {"dev": "dev", "test": "test"},
        "weight": 3.0,
    },
    {"name": "far", "metric": "toys:nearness", "data": {"dev": "test", "test": "dev"}},
]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    return make_run(folder, algorithm={"name": "genome_plus"}, tasks=TWO_TASKS, finalists=1)


@pytest.fixture(scope="module")
def lineage(run_dir):
    return evo.lineage.open(run_dir)


@pytest.fixture(scope="module")
def founder(lineage):
    return lineage.individuals["id"][0].as_py()


# -- family --------------------------------------------------------------------------------------


def test_keys_are_the_first_digits_as_a_number():
    ids = ["0123456789abcdef" + "0" * 48, "f" * 64, "00000000deadbeef" + "1" * 48]
    whole = pa.chunked_array([ids[:1], [], ids[1:]], pa.string())
    assert keys_of(whole).tolist() == [int(i[:16], 16) for i in ids]
    sliced = pa.chunked_array([pa.array(["1" * 64, *ids]).slice(2)])
    assert keys_of(sliced).tolist() == [int(i[:16], 16) for i in ids[1:]]
    with pytest.raises(EvoError, match="64 hex digits"):
        keys_of(pa.chunked_array([["abc"]]))


def test_ids_that_begin_alike_are_no_silent_mix_up():
    with pytest.raises(EvoError, match="begin with the same 16 digits"):
        KeyIndex.of(np.array([5, 7, 5], np.uint64))


def test_walks_are_those_of_a_simple_search():
    rng = np.random.default_rng(3)
    for size in (1, 2, 30, 200):
        lists = [
            sorted(set(rng.integers(0, size, rng.integers(0, 4)).tolist())) for _ in range(size)
        ]
        starts = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
        graph = ParentGraph(starts, np.array([t for x in lists for t in x], np.int64))
        back = [[s for s in range(size) if t in lists[s]] for t in range(size)]
        for one, edges in ((graph, lists), (graph.reversed(), back)):
            distance, frontier = {0: 0}, [0]
            for at in frontier:
                for target in edges[at]:
                    if target not in distance:
                        distance[target] = distance[at] + 1
                        frontier.append(target)
            assert one.distances(0).tolist() == [distance.get(i, -1) for i in range(size)]


def test_a_tree_has_every_edge_among_the_ancestors(lineage):
    family = lineage.ancestors("best", ["id", "generation", "operator", "parents"])
    rows = {row["id"]: row for row in family.to_pylist()}
    frame = lineage.evaluations.to_pandas()
    dev = frame[frame["split"] == "dev"].groupby("individual")["fitness"].first()
    edges = lineage.tree("best").to_pylist()
    wanted = {(child, parent) for child, row in rows.items() for parent in row["parents"]}
    assert wanted
    assert {(e["child"], e["parent"]) for e in edges} == wanted
    assert len(edges) == len(wanted)
    for edge in edges:
        child = rows[edge["child"]]
        for name in ("operator", "generation", "distance"):
            assert edge[name] == child[name]
        assert edge["child_fitness"] == dev[edge["child"]]
        assert edge["parent_fitness"] == dev[edge["parent"]]
    assert [e["distance"] for e in edges] == sorted(e["distance"] for e in edges)


def test_a_founder_has_no_tree(lineage, founder):
    assert lineage.tree(founder).num_rows == 0
    assert lineage.ancestors(founder)["id"].to_pylist() == [founder]


def test_a_family_has_the_columns_asked_for(lineage):
    found = lineage.ancestors("best", ["recipe", "id"])
    assert found.column_names == ["recipe", "id", "distance"]
    rows = {r["id"]: r["recipe"] for r in lineage.individuals.to_pylist()}
    assert all(rows[r["id"]] == r["recipe"] for r in found.to_pylist())
    with pytest.raises(EvoError, match="no column 'name'"):
        lineage.descendants("best", ["name"])


def test_a_lineage_reads_on_as_its_run_does(tmp_path):
    with Evolution(toy_config(tmp_path / "f"), tmp_path / "run") as evolution:
        following = evo.lineage.open(tmp_path / "run")
        for generation in evolution:
            fresh = evo.lineage.open(tmp_path / "run")
            for ask in ("ancestors", "descendants", "tree"):
                assert getattr(following, ask)("best").equals(getattr(fresh, ask)("best"))
            assert following.best_so_far().equals(fresh.best_so_far())
            assert following.best_so_far().num_rows == generation.evaluations
            assert following.individuals.equals(fresh.individuals)


def test_a_lineage_follows_a_repair_that_sets_all_aside(tmp_path):
    """And what is evaluated again then."""
    run = make_run(tmp_path)
    following = evo.lineage.open(run)
    ids = set(following.ancestors("best")["id"].to_pylist())
    file = run / "lineage" / "evaluations" / "000000.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    moved = set_damage_aside(RunDir(run))
    assert moved
    with pytest.raises(EvoError, match="no individual's id begins"):
        following.find(min(ids))
    assert following.individuals.num_rows == 0
    with Evolution.resume(run) as evolution:
        list(evolution)
        evolution.finish()
    assert set(following.ancestors("best")["id"].to_pylist()) == ids


# -- curve ---------------------------------------------------------------------------------------


def test_the_curve_has_each_individual_once_and_never_falls(lineage):
    frame = lineage.best_so_far().to_pandas()
    rows = lineage.evaluations.to_pandas()
    dev = rows[(rows["split"] == "dev") & (rows["task"] == "near")]
    assert list(frame.columns) == [
        "evaluation", "generation", "at_seconds", "individual", "fitness", "best",
    ]  # fmt: skip
    assert list(frame["evaluation"]) == list(range(len(dev)))
    assert list(frame["individual"]) == list(dev["individual"])
    assert list(frame["fitness"]) == list(dev["fitness"])
    assert list(frame["best"]) == list(frame["fitness"].cummax())


def test_the_best_of_a_run_that_did_not_finish_may_be_of_no_population(tmp_path):
    """As when the budget ends within a generation."""
    config = toy_config(
        tmp_path / "f", algorithm={"name": "recipe_search"}, budget={"evaluations": 8}
    )
    with Evolution(config, tmp_path / "run") as evolution:
        following = evo.lineage.open(tmp_path / "run")
        for _ in evolution:
            assert following.best() == evolution.best.id
        assert evolution.best.id not in following.population["individual"].to_pylist()


def test_what_failed_has_no_fitness_on_the_curve(tmp_path):
    task = {"name": "toy", "metric": "toys:broken_for_b", "data": {"dev": "dev", "test": "test"}}
    run = make_run(tmp_path, tasks=[task], budget={"evaluations": 8}, finalists=1)
    curve = evo.lineage.open(run).best_so_far()
    assert curve["fitness"].null_count == 1
    failed = curve["fitness"].to_pylist().index(None)
    best = curve["best"].to_pylist()
    assert best[failed] == (best[failed - 1] if failed else None)
    ids = evo.lineage.open(run).individuals["id"].to_pylist()
    with pytest.raises(EvoError, match=f"{ids[1][:12]} has no scores on dev"):
        evo.lineage.open(run).compare("best", ids[1])


def test_the_curve_is_the_searchs_own(tmp_path):
    static = {"static": ["task_arithmetic", "ties"], "random_search": True}
    run = make_run(tmp_path, baselines=static, budget={"evaluations": 6})
    curve = evo.lineage.open(run).best_so_far()
    summary = json.loads((run / "summary.json").read_text())
    tuned = [b["dev"] for b in summary["baselines"] if b["kind"] == "static"]
    assert max(tuned) > max(curve["fitness"].to_pylist())  # else nothing would be seen
    assert curve.num_rows == summary["evaluations"] == 6
    ids = set(curve["individual"].to_pylist())
    rows = evo.lineage.open(run).individuals.to_pylist()
    assert not any(r["operator"].startswith("static:") for r in rows if r["id"] in ids)


# -- shares --------------------------------------------------------------------------------------


def shares(recipe, layers=2):
    rows = founder_shares(recipe, layers).to_pylist()
    totals = {}
    for row in rows:
        place = row["group"], row["filter"]
        totals[place] = totals.get(place, 0.0) + row["share"]
    assert all(math.isclose(t, 1.0) for t in totals.values())
    return {(r["group"], r["filter"], r["founder"]): r["weight"] for r in rows}


def test_shares_of_a_sum_are_its_coefficients():
    found = shares(linear({A: 0.5, B: -0.3, Noise(1): 0.01}))
    for group in ("embedding", "layer 0", "layer 1", "head"):
        assert found[group, "", "a"] == 0.5
        assert found[group, "", "b"] == -0.3
        assert found[group, "", "noise"] == 0.01
    assert len(found) == 12


def test_shares_by_layer_and_tensor():
    by_layer = Grouped((Rule(("self_attn",), (0.1, 0.2)), Rule((), (0.3, 0.4))))
    found = shares(linear({A: by_layer, B: 1.0}))
    assert found["layer 0", "self_attn", "a"] == 0.1
    assert found["layer 1", "self_attn", "a"] == 0.2
    assert found["layer 0", "", "a"] == found["embedding", "", "a"] == 0.3
    assert found["head", "", "a"] == 0.4
    assert found["layer 1", "", "a"] == 0.4
    assert ("embedding", "self_attn", "a") not in found


def test_shares_of_merges_multiply_through():
    inner = merge("slerp", [A, B], params={"t": 0.25})
    outer = merge("ties", [inner, C], base=A, params={"weight": (0.5, 2.0), "normalize": False})
    found = shares(linear({outer: 0.5, C: 1.0}), 0)
    assert found == pytest.approx(
        {("model", "", "a"): 0.1875, ("model", "", "b"): 0.0625, ("model", "", "c"): 2.0}
    )
    even = shares(merge("model_stock", [A, B], base=C), 0)
    assert even["model", "", "a"] == even["model", "", "b"]
    assert ("model", "", "c") not in even
    normal = shares(merge("linear", [A, B], params={"weight": (1.0, 3.0), "normalize": True}), 0)
    assert normal == {("model", "", "a"): 0.25, ("model", "", "b"): 0.75}


def test_shares_of_a_path_go_step_by_step():
    mixed = linear({A: Grouped((Rule((), (1.0, 0.0)),)), B: Grouped((Rule((), (0.0, 1.0)),))})
    route = Route(A, (Step(B, 1), Step(mixed, 1, 0.5), Step(mixed, 0)), B)
    found = {place: w for place, w in shares(route).items() if w}
    assert found == {
        ("embedding", "", "a"): 1.0,
        ("step 0: layer 1", "", "b"): 1.0,
        ("step 1: layer 1", "", "b"): 1.0,
        ("step 2: layer 0", "", "a"): 1.0,
        ("head", "", "b"): 1.0,
    }


def test_shares_agree_with_the_weights(lineage):
    """The toy's base is zero and a to c are corners: a share is a coordinate, but for the noise."""
    best = lineage.recipe("best")
    weight = {r["founder"]: r["weight"] for r in lineage.founder_shares("best").to_pylist()}
    founders = [r for r in walk(best) if isinstance(r, Founder)]
    models = {f: weights_of({"x": torch.tensor(FOUNDERS[f.name])}) for f in founders}
    layout = next(iter(models.values())).layout
    built = Materializer(layout, models).build(best, allocate(layout, "cpu"))
    made = sum(weight[f.name] * np.array(FOUNDERS[f.name]) for f in founders)
    assert np.abs(built["x"].numpy() - made).max() < 0.05


# -- comparison ----------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_comparison_is_of_the_fitness_with_an_interval_around_it(split, lineage, founder):
    found = lineage.compare("best", founder, split)
    frame = lineage.evaluations.to_pandas()
    fitness = frame[frame["split"] == split].groupby("individual")["fitness"].first()
    assert found.difference == pytest.approx(fitness[lineage.best()] - fitness[founder])
    assert found.low < found.difference < found.high
    items = found.items.to_pandas()
    assert list(items.columns) == ["task", "split", "example", "a", "b", "a_answer", "b_answer"]
    assert len(items) == 8
    assert found.gained == (items["a"] > items["b"]).sum()
    assert found.lost == (items["a"] < items["b"]).sum()
    back = lineage.compare(founder, "best", split)
    assert (back.difference, back.gained, back.lost) == (
        -found.difference,
        found.lost,
        found.gained,
    )
    assert f"difference {found.difference:+.4f}" in found.describe()


def test_a_comparison_of_one_task_has_its_examples_alone(lineage, founder):
    found = lineage.compare("best", founder, task="far")
    assert set(found.items["task"].to_pylist()) == {"far"}
    frame = found.items.to_pandas()
    assert found.difference == pytest.approx((frame["a"] - frame["b"]).mean())
    with pytest.raises(EvoError, match="has no scores on select"):
        lineage.compare("best", founder, "select")
    with pytest.raises(EvoError, match="has no scores on dev of task 'nothing'"):
        lineage.compare("best", founder, task="nothing")


def test_lower_is_better_turns_a_comparison_round(run_dir, tmp_path, founder):
    import shutil

    shutil.copytree(run_dir, tmp_path / "run")
    folder = RunDir(tmp_path / "run")
    manifest = folder.read_manifest()
    assert manifest.lower_is_better == ()
    right = evo.lineage.open(tmp_path / "run").compare("best", founder)
    folder.write_manifest(replace(manifest, lower_is_better=("near", "far")))
    turned = evo.lineage.open(tmp_path / "run").compare("best", founder)
    assert turned.difference == -right.difference
    assert (turned.gained, turned.lost) == (right.lost, right.gained)


def test_an_individual_against_itself_is_the_same(lineage):
    found = lineage.compare("best", "best")
    assert (found.difference, found.low, found.high, found.gained, found.lost) == (0, 0, 0, 0, 0)
    assert "no clear difference" in found.describe()


class Merges:
    """Tries the founders and what the baselines will try again."""

    def __init__(self, start):
        founders = [Candidate(f, "founder") for f in start.founders]
        ties = [replace(c, operator="mine") for c in static_grid("ties", start)[:2]]
        self.tried, self.generation, self.population = [*founders, *ties], -1, ()

    def ask(self):
        return self.tried

    def tell(self, scored):
        self.population, self.generation = tuple(scored), self.generation + 1


def test_what_the_baselines_tried_again_counts_once(tmp_path):
    changes = {"baselines": {"static": ["ties"]}, "budget": {"generations": 1}}
    with Evolution(toy_config(tmp_path / "f", **changes), tmp_path / "run", algorithm=Merges) as e:
        list(e)
        e.finish()
    lineage = evo.lineage.open(tmp_path / "run")
    mine = pc.field("operator") == "mine"
    again = lineage.table("individuals", ["id"], mine)["id"][0].as_py()
    rows = lineage.table("items", ["value"], pc.field("individual") == again)
    assert rows.num_rows >= 2 * 4  # on dev twice
    assert lineage.compare(again, "best").items.num_rows == 4
    assert lineage.best_so_far().num_rows == 5


# -- many runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    for seed in (0, 1):
        make_run(folder / "runs", f"seed-{seed}", seed=seed, budget={"evaluations": 12})
    return folder / "runs"


def test_a_pattern_opens_every_run_that_fits(runs):
    found = evo.lineage.open(f"{runs}/*")
    assert found.runs == (f"{runs}/seed-0", f"{runs}/seed-1")  # and not the founders' folder
    for name in evo.lineage.SCHEMAS:
        table = getattr(found, name)
        assert table.column_names == ["run", *evo.lineage.SCHEMAS[name].names]
        for run in found.runs:
            one = table.filter(pc.field("run") == run).drop_columns("run")
            assert one.equals(evo.lineage.open(run).table(name))
    assert found["seed-1"].run_dir == runs / "seed-1"
    assert evo.lineage.open([runs / "seed-1", runs / "seed-0"]).runs == found.runs[::-1]


def test_conditions_hold_over_many_runs_and_may_name_them(runs):
    found = evo.lineage.open(f"{runs}/*")
    both = found.table("population", ["fitness"], pc.field("rank") == 0)
    one = found.table(
        "population", ["fitness"], (pc.field("rank") == 0) & (pc.field("run") == found.runs[1])
    )
    assert both.column_names == one.column_names == ["run", "fitness"]
    assert set(one["run"].to_pylist()) == {found.runs[1]}
    assert 0 < one.num_rows < both.num_rows


def test_the_run_alone_is_a_column_like_others(runs):
    found = evo.lineage.open(f"{runs}/*")
    first = pc.field("run") == found.runs[0]
    for where in (None, pc.field("rank") == 0, first):
        only = found.table("population", ["run"], where)
        assert only.column_names == ["run"]
        assert only["run"].equals(found.table("population", None, where)["run"])


def test_a_table_without_columns_is_refused(run_dir):
    lineage = evo.lineage.open(run_dir)
    for ask in (lambda: lineage.table("items", []), lambda: lineage.ancestors("best", [])):
        with pytest.raises(EvoError, match="without columns"):
            ask()


def test_an_individual_is_found_in_each_run_where_it_was_tried(runs):
    found = evo.lineage.open(f"{runs}/*")
    founder = found["seed-0"].individuals["id"][0].as_py()
    assert found.find(founder[:16]) == founder
    family = found.descendants(founder)
    assert set(family["run"].to_pylist()) == set(found.runs)
    best = found["seed-1"].best()
    only = found.ancestors(best[:20])
    assert set(only["run"].to_pylist()) == {found.runs[1]}
    assert only.drop_columns("run").equals(found["seed-1"].ancestors(best))


def test_runs_that_are_not_there_are_refused(runs):
    with pytest.raises(EvoError, match="no run fits this"):
        evo.lineage.open(f"{runs}/nothing-*")
    with pytest.raises(EvoError, match="no run here"):
        evo.lineage.open([runs / "seed-0", runs / "f"])
    with pytest.raises(EvoError, match="no run 'seed-7' here; there are: "):
        evo.lineage.open(f"{runs}/*")["seed-7"]
    with pytest.raises(EvoError, match="no individual's id begins with 'xyz'"):
        evo.lineage.open(f"{runs}/*").find("xyz")
    with pytest.raises(EvoError, match="each run has a best of its own"):
        evo.lineage.open(f"{runs}/*").ancestors("best")


# -- the command ---------------------------------------------------------------------------------


def command(*arguments, **environment):
    done = evo_command("lineage", *arguments, **environment)
    return done.returncode, done.stdout, done.stderr


def test_the_tree_is_drawn_and_its_edges_are_for_machines(run_dir, lineage):
    code, out, _ = command(run_dir, "--tree", "best")
    assert code == 0
    ids = lineage.ancestors("best")["id"].to_pylist()
    assert out.splitlines()[0].startswith(ids[0][:12])
    assert all(i[:12] in out for i in ids[:40])
    code, out, _ = command(run_dir, "--tree", "best", "--format", "json")
    assert [json.loads(line) for line in out.splitlines()] == lineage.tree("best").to_pylist()
    _, out, _ = command(run_dir, "--tree", "best", "--limit", "2")
    assert f"and {len(ids) - 2} ancestors more" in out


@pytest.mark.parametrize("what", ["--tree", "--shares"])
def test_a_terminal_that_knows_ascii_alone_shows_what_it_can(what, run_dir, lineage):
    code, out, err = command(run_dir, what, "best", PYTHONIOENCODING="ascii")
    assert (code, err) == (0, "")
    assert out.isascii()
    assert out


def test_shares_and_comparisons_are_printed(run_dir, lineage, founder):
    code, out, _ = command(run_dir, "--shares", "best")
    assert code == 0
    assert {"a", "b", "c"} & set(out.splitlines()[0].split())
    code, out, _ = command(run_dir, "--shares", "best", "--format", "json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows == lineage.founder_shares("best").to_pylist()
    code, out, _ = command(run_dir, "--compare", "best", founder[:16], "--split", "test")
    assert (code, out.strip()) == (0, lineage.compare("best", founder, "test").describe())
    _, out, _ = command(run_dir, "--compare", "best", founder, "--format", "json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows == lineage.compare("best", founder).items.to_pylist()


def test_an_empty_id_is_no_wish_for_everybody(run_dir):
    """As of a shell's variable that holds nothing."""
    for option in ("--ancestors", "--descendants", "--tree", "--shares"):
        code, out, err = command(run_dir, option, "")
        assert (code, out) == (2, "")
        assert "no individual's id begins with ''" in err


def test_a_split_is_of_a_comparison(run_dir):
    code, out, err = command(run_dir, "--table", "items", "--split", "test")
    assert (code, out) == (2, "")
    assert "--split goes with --compare" in err


def test_a_pattern_prints_many_runs_and_questions_want_one(runs):
    code, out, _ = command(f"{runs}/*", "--table", "population", "--format", "json")
    assert code == 0
    assert {json.loads(line)["run"] for line in out.splitlines()} == {
        f"{runs}/seed-0",
        f"{runs}/seed-1",
    }
    code, out, err = command(f"{runs}/*", "--tree", "best")
    assert (code, out) == (2, "")
    assert "--tree looks at one run, and these are 2" in err
    code, _, err = command(runs / "seed-0", "--tree", "best", "--shares", "best")
    assert code == 2
    assert "choose --tree or --shares, not both" in err
