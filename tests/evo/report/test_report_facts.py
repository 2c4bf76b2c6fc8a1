"""What a report says of real runs, against the same computed another way: pandas, brute force, the summary."""

import itertools
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from lineages import report_of
from toys import toy_config

import evo.lineage
from evo.evolution import Evolution
from operators.recipe import Founder, walk

TASKS = [
    {
        "name": name,
        "metric": f"toys:{metric}",
        "weight": weight,
        "data": {"dev": "dev", "select": "select", "test": "test"},
    }
    for name, metric, weight in (("near", "nearness", 3.0), ("nearer", "nearness", 1.0))
]
SHARES = {"near": 0.75, "nearer": 0.25}


def finish(run_dir, folder, **changes):
    with Evolution(toy_config(folder, **changes), run_dir) as evolution:
        for _ in evolution:
            pass
        evolution.finish()
    return run_dir


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("facts")


@pytest.fixture(scope="module")
def genome(folder):
    """GENOME, with two tasks and random search to compare with."""
    changes = {
        "tasks": TASKS,
        "algorithm": {"name": "genome", "population": 8},
        "budget": {"evaluations": 90},
        "baselines": {"random_search": True, "static": ["task_arithmetic"]},
    }
    return finish(folder / "genome", folder / "founders", **changes)


@pytest.fixture(scope="module")
def found(genome):
    return report_of(genome)


@pytest.fixture(scope="module")
def dev(genome):
    """A row for each individual of the search with its dev fitness, in the order recorded."""
    lineage = evo.lineage.open(genome)
    rows = lineage.evaluations.to_pandas()
    rows = rows[(rows["split"] == "dev") & (rows["task"] == "near")]
    people = lineage.individuals.to_pandas().set_index("id")
    rows = rows.join(people[["operator", "parents"]], on="individual")
    rows = rows[~rows["operator"].str.startswith("static:")]
    return rows.reset_index(drop=True)


def test_the_headline_is_the_winner_against_the_founder_that_is_best_on_dev(genome, found, dev):
    summary = json.loads((genome / "summary.json").read_text())
    founders = [b for b in summary["baselines"] if b["kind"] == "founder"]
    best = max(founders, key=lambda b: b["dev"])
    says = found["headline"]
    assert says["split"] == "test"
    assert (says["winner"]["id"], says["founder"]["id"]) == (summary["winner"]["id"], best["id"])
    assert says["founder"]["name"] == best["name"]
    assert says["winner_score"] == pytest.approx(summary["winner"]["test"], abs=1e-12)
    assert says["winner_se"] == pytest.approx(summary["winner"]["test_se"], abs=1e-12)
    assert says["founder_score"] == pytest.approx(best["test"], abs=1e-12)
    assert says["difference"] == pytest.approx(summary["winner"]["test"] - best["test"], abs=1e-12)
    assert says["low"] <= says["difference"] <= says["high"]
    compared = evo.lineage.open(genome).compare(says["winner"]["id"], best["id"], "test")
    assert (says["low"], says["high"]) == pytest.approx((compared.low, compared.high))
    assert says["examples"] == compared.items.num_rows == found["run"]["splits"]["test"]


def test_the_table_of_scores_is_the_summarys(genome, found):
    summary = json.loads((genome / "summary.json").read_text())
    expected = [summary["winner"], *summary["baselines"]]
    rows = found["scores"]
    keys = ("name", "kind", "id", "dev", "select", "test", "test_se")
    assert [[r[k] for k in keys] for r in rows] == [[r[k] for k in keys] for r in expected]
    for row, theirs in zip(rows, expected, strict=True):
        for task, scores in theirs["tasks"].items():
            assert row["tasks"][task]["test"] == {
                "score": scores["test"],
                "se": scores["test_se"],
            }
    assert rows[0]["tasks"].keys() == SHARES.keys()
    assert rows[0]["tasks"]["near"].keys() == {"dev", "select", "test"}


def test_the_curves_are_those_of_pandas(genome, found, dev):
    curve = found["fitness"]
    groups = dev.groupby("generation")["fitness"]
    assert curve["generation"] == list(groups.groups)
    assert curve["evaluations"] == groups.size().cumsum().tolist()
    assert curve["best"] == groups.max().cummax().tolist()
    assert curve["mean"] == pytest.approx(groups.mean().tolist())
    assert curve["low"] == pytest.approx(groups.quantile(0.1).tolist())
    assert curve["high"] == pytest.approx(groups.quantile(0.9).tolist())
    assert curve["seconds"] == pytest.approx(
        dev.groupby("generation")["at_seconds"].max().cummax().tolist()
    )
    assert curve["evaluations"][-1] == found["run"]["evaluations"] == 90


def test_baselines_are_lines_at_their_dev_scores_and_random_search_a_curve(genome, found):
    lines = {line["name"]: line for line in found["fitness"]["baselines"]}
    rows = {r["name"]: r for r in found["scores"] if r["kind"] != "winner"}
    assert {n: line["value"] for n, line in lines.items()} == {
        n: r["dev"] for n, r in rows.items() if r["dev"] is not None
    }
    curve = lines["random search"]["curve"]
    theirs = evo.lineage.open(genome / "baselines" / "random_search").best_so_far().to_pandas()
    assert curve["evaluations"][-1] == len(theirs)
    assert curve["best"] == theirs["best"][np.array(curve["evaluations"]) - 1].tolist()
    assert lines["a"]["curve"] is None


def test_operators_are_counted_as_by_hand(genome, found, dev):
    alive = evo.lineage.open(genome).population.to_pandas()
    last = alive["generation"].max()  # the budget ends within the next one, which has no population
    alive = set(zip(alive["generation"], alive["individual"], strict=True))
    fitness = dict(zip(dev["individual"], dev["fitness"], strict=True))
    rows = {r["operator"]: r for r in found["operators"]}
    children = dev[dev["operator"] != "founder"]
    assert rows.keys() == set(children["operator"])
    for operator, group in children.groupby("operator"):
        survived = sum(
            (g, i) in alive for g, i in zip(group["generation"], group["individual"], strict=True)
        )
        improved = sum(
            all(f > fitness[p] for p in parents if p in fitness)
            for f, parents in zip(group["fitness"], group["parents"], strict=True)
        )
        row = rows[operator]
        assert (row["children"], row["survived"], row["improved"], row["failed"]) == (
            (len(group), survived, improved, 0)
        )
        assert row["survival"] == survived / (group["generation"] <= last).sum()
        assert row["best"] == group["fitness"].max()
    assert 0 < sum(r["survived"] for r in rows.values()) < len(children)
    assert any(r["improved"] for r in rows.values())


def test_diversity_is_what_comparing_all_pairs_gives(genome, found):
    lineage = evo.lineage.open(genome)
    items = lineage.items.to_pandas()
    items = items[items["split"] == "dev"].pivot_table(
        index="individual", columns=["task", "example"], values="value"
    )
    says = found["diversity"]
    population = lineage.population.to_pandas()
    assert says["generation"] == sorted(set(population["generation"]))
    for number, disagreement, distinct in zip(*says.values(), strict=True):
        members = population[population["generation"] == number]["individual"]
        values = items.loc[members].to_numpy()
        pairs = list(itertools.combinations(values, 2))
        assert disagreement == pytest.approx(np.mean([a != b for a, b in pairs]))
        unlike = [sum((v == w).all() for w in values) == 1 for v in values]
        assert distinct == pytest.approx(np.mean(unlike))
    assert says["disagreement"][0] > 0


def test_the_family_has_all_ancestors_in_their_generations(genome, found):
    lineage = evo.lineage.open(genome)
    ancestors = (
        lineage.ancestors("best", ["id", "generation", "operator", "parents", "description"])
        .to_pandas()
        .set_index("id")
    )
    family = found["family"]
    nodes = family["nodes"]
    assert {n["id"] for n in nodes} >= set(ancestors.index)
    assert family["left_out"] == 0
    assert all(n["generation"] == ancestors["generation"].get(n["id"], 0) for n in nodes)
    tree = lineage.tree("best").to_pylist()
    drawn = {(nodes[p]["id"], nodes[c]["id"]) for p, c in family["edges"]}
    assert drawn >= {(e["parent"], e["child"]) for e in tree}
    for parent, child in drawn - {(e["parent"], e["child"]) for e in tree}:
        assert parent in {r.id for r in walk(lineage.recipe(child)) if isinstance(r, Founder)}
    for node in nodes:
        assert node["fitness"] == pytest.approx(
            sum(SHARES[t] * score for t, score in node["tasks"].items())
        )
    lanes = {(n["generation"], n["lane"]) for n in nodes}
    assert len(lanes) == len(nodes)
    assert all(0 < lane < 1 for _, lane in lanes)
    assert report_of(genome)["family"] == family


def test_changed_examples_are_those_whose_score_is_another(genome, found):
    says = found["changed"]
    rows = evo.lineage.open(genome).compare("best", says["against"]["id"], "test").items.to_pandas()
    better, worse = rows[rows["a"] > rows["b"]], rows[rows["a"] < rows["b"]]
    assert (says["fixed"], says["broken"]) == (len(better), len(worse))
    assert says["both_right"] + says["both_wrong"] == len(rows) - len(better) - len(worse)
    fixed = {(r["task"], r["example"]) for r in says["examples"] if r["change"] == "fixed"}
    assert fixed == set(zip(better["task"], better["example"], strict=True))
    assert says["left_out"] == 0


def test_shares_add_up_and_are_the_lineages(genome, found):
    says = found["shares"]
    assert says["groups"] == ["model"]
    assert np.sum(says["share"], axis=1) == pytest.approx(1.0)
    table = evo.lineage.open(genome).founder_shares("best").to_pandas().set_index("founder")
    assert dict(zip(says["founders"], says["weight"][0], strict=True)) == pytest.approx(
        table["weight"].to_dict()
    )
    assert found["path"] is None
    assert ("Noise" in says["note"]) == ("noise" in says["founders"])


def test_cost_adds_up(genome, found):
    rows = evo.lineage.open(genome).evaluations.to_pandas()
    cost = found["cost"]
    jobs = rows[rows["task"] == "near"]
    assert cost["evaluations"] == len(jobs) == sum(s["evaluations"] for s in cost["splits"])
    assert cost["evaluations"] == sum(h["evaluations"] for h in cost["hosts"])
    assert cost["examples"] == rows["examples"].sum()
    assert cost["busy_seconds"] == pytest.approx(rows["seconds"].sum())
    parts = sum(cost[f"{part}_seconds"] for part in ("build", "model", "score"))
    assert parts == pytest.approx(cost["busy_seconds"])
    assert cost["tokens"] is None  # a torch module has none
    assert cost["peak_memory_bytes"] > 10_000_000
    assert cost["final_seconds"] > 0
    dev = next(s for s in cost["splits"] if s["split"] == "dev")
    assert dev["examples"] == rows[rows["split"] == "dev"]["examples"].sum()


def test_the_run_says_where_it_stands(genome, found):
    run = found["run"]
    assert (run["name"], run["state"], run["algorithm"]) == ("genome", "finished", "genome")
    assert run["budget"] == 90
    assert run["tasks"] == [
        {"name": "near", "metric": "toys:nearness", "weight": 3.0},
        {"name": "nearer", "metric": "toys:nearness", "weight": 1.0},
    ]
    assert run["splits"] == {"dev": 8, "select": 8, "test": 8}
    assert run["generations"] == len(list((genome / "lineage" / "commits").iterdir())) - 1
    assert run["started"] <= run["updated"]
    assert found["events"]["counts"]["finish"] == 1
    assert found["events"]["rows"][0]["kind"] == "start"
    assert found["problem"] is None


def test_a_run_that_goes_on_counts_what_is_in_no_commit_yet(folder):
    """Asked in the middle of a generation, while the run has its folder's lock."""
    heard = []

    def look(progress):
        if progress.evaluations == 43:
            heard.append((progress, report_of(folder / "going")))

    config = toy_config(folder / "founders", algorithm="genome", budget={"evaluations": 60})
    with Evolution(config, folder / "going", observe=look) as evolution:
        for _ in evolution:
            pass
        progress, says = heard[0]
    assert (says["run"]["state"], says["run"]["evaluations"]) == ("running", 43)
    assert says["fitness"]["evaluations"][-1] < 43
    assert says["headline"]["split"] == says["changed"]["split"] == "dev"
    assert "optimistic" in says["headline"]["note"]
    assert says["headline"]["winner_score"] <= progress.best
    assert [r["kind"] for r in says["scores"]] == ["winner", "founder", "founder", "founder"]
    assert {line["name"] for line in says["fitness"]["baselines"]} == {"a", "b", "c"}
    assert says["problem"] is None
    assert report_of(folder / "going")["run"]["state"] == "stopped"


def test_before_anything_is_committed_there_is_nothing_to_say(folder):
    with Evolution(toy_config(folder / "founders"), folder / "new") as evolution:
        (folder / "new" / "lineage").mkdir(exist_ok=True)
        says = report_of(folder / "new")
        assert (says["run"]["state"], says["run"]["evaluations"]) == ("running", 0)
        assert says["headline"] is says["changed"] is says["diversity"] is says["shares"] is None
        assert says["family"]["nodes"] == says["scores"] == says["operators"] == []
        assert says["problem"] is None
        next(iter(evolution))
    says = report_of(folder / "new")
    assert says["run"]["generations"] == 1
    assert says["headline"]["difference"] == 0
    assert says["headline"]["winner"]["id"] == says["headline"]["founder"]["id"]
    assert says["changed"] is None
    assert [n["operator"] for n in says["family"]["nodes"]] == ["founder"]


def test_failed_individuals_are_counted_and_are_nobodys_best(folder):
    data = {s: s for s in ("dev", "select", "test")}
    task = {"name": "toy", "metric": "toys:broken_for_b", "data": data}
    says = report_of(finish(folder / "failed", folder / "founders", tasks=[task]))
    assert says["run"]["failed"] == 1
    assert sum(h["failed"] for h in says["cost"]["hosts"]) >= 1
    assert says["headline"]["founder"]["name"] != "b"
    assert says["events"]["counts"]["failed"] == 1
    assert next(r for r in says["scores"] if r["name"] == "b")["dev"] is None
    node = next((n for n in says["family"]["nodes"] if n["name"] == "b"), None)
    assert node is None or node["fitness"] is None


@pytest.mark.parametrize("algorithm", ["recipe_search", "differential_evolution"])
def test_the_family_of_a_search_over_recipes_begins_with_the_founders(folder, algorithm):
    """It records neighbours as parents; what the first children are made of is drawn too."""
    says = report_of(finish(folder / algorithm, folder / "founders", algorithm=algorithm))
    nodes = says["family"]["nodes"]
    assert {"a", "b", "c"} <= {n["name"] for n in nodes}
    linked = {end for edge in says["family"]["edges"] for end in edge}
    assert linked == set(range(len(nodes)))


def test_a_steady_state_is_told_as_any_other(folder):
    loop = {"kind": "steady_state", "in_flight": 3}
    says = report_of(finish(folder / "steady", folder / "founders", loop=loop, algorithm="genome"))
    assert says["run"]["evaluations"] == says["fitness"]["evaluations"][-1] == 60
    assert len(says["diversity"]["generation"]) == len(says["fitness"]["generation"])


def damaged(genome, folder, name):
    copy = folder / f"damaged-{name.replace('/', '-')}"
    shutil.copytree(genome, copy)
    path = copy / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    return copy, path


@pytest.mark.parametrize("table", ["evaluations", "individuals", "population", "commits"])
def test_what_was_recorded_before_a_damaged_file_is_told(genome, folder, table):
    ending = "json" if table == "commits" else "parquet"
    copy, path = damaged(genome, folder, f"lineage/{table}/000003.{ending}")
    says = report_of(copy)
    assert str(path) in says["problem"]
    assert says["run"]["generations"] == 3
    assert says["fitness"]["generation"] == [0, 1, 2]
    assert says["fitness"]["best"] == report_of(genome)["fitness"]["best"][:3]


def test_damaged_examples_cost_what_is_made_of_them(genome, folder):
    copy, path = damaged(genome, folder, "lineage/items/final.parquet")
    says, whole = report_of(copy), report_of(genome)
    assert str(path) in says["problem"]
    assert says["changed"] is says["headline"]["low"] is None
    assert says["headline"]["difference"] == pytest.approx(whole["headline"]["difference"])
    assert says["diversity"] == whole["diversity"]


@pytest.mark.parametrize("name", ["summary.json", "config.json", "manifest.json"])
@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_damaged_small_file_is_named_and_the_lineage_told(genome, folder, name, text):
    copy = folder / f"{name}-{len(text)}-{text[0] == '['}"
    shutil.copytree(genome, copy)
    (copy / name).write_text(text)
    says = report_of(copy)
    assert str(copy / name) in says["problem"]
    assert says["run"]["evaluations"] == 90
    assert says["headline"] is not None


def test_no_model_library_is_loaded(genome):
    code = (
        "import sys, evo.lineage; from evo.report.facts import facts; "
        f"facts(evo.lineage.open({str(genome)!r})); "
        "print(sorted({'torch', 'transformers', 'ray'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
