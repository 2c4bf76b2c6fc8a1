"""What a run leaves behind, as somebody finds it who was not there."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toys import toy_config

import evo.lineage
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.lineage import SCHEMAS, Lineage
from evo.lineage.ancestry.index import COLUMNS as FAMILY_COLUMNS
from evo.lineage.schema import SCHEMA_VERSION
from operators.recipe import Founder
from operators.recipe.canonical import from_json

FOUNDERS = 3


def make_run(folder, name="genome_plus", **changes):
    config = toy_config(folder / "f", algorithm={"name": name}, **changes)
    with Evolution(config, folder / "run") as evolution:
        generations = list(evolution)
        evolution.finish()
    return folder / "run", generations


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("lineage"), budget={"generations": 5})


@pytest.fixture(scope="module")
def lineage(made):
    return evo.lineage.open(made[0])


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_table_has_its_declared_schema(name, lineage):
    table = lineage.table(name)
    assert table.num_rows > 0
    assert table.schema.equals(SCHEMAS[name], check_metadata=False)
    assert [f.nullable for f in table.schema] == [f.nullable for f in SCHEMAS[name]]
    assert getattr(lineage, name).equals(table)
    table.validate(full=True)
    for field, column in zip(table.schema, table.columns, strict=True):
        assert field.nullable or column.null_count == 0
    assert len(table.to_pandas()) == table.num_rows


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_files_have_the_declared_schema_with_its_documentation(name, made):
    for file in (made[0] / "lineage" / name).iterdir():
        schema = pq.read_schema(file)
        assert schema.equals(SCHEMAS[name], check_metadata=False)
        assert schema.metadata[b"evo.schema"] == SCHEMA_VERSION.encode()
        assert all(f.metadata[b"doc"] for f in schema)


def test_there_is_one_file_a_generation_and_one_for_the_end(made):
    run_dir, generations = made
    files = {n: sorted(p.name for p in (run_dir / "lineage" / n).iterdir()) for n in SCHEMAS}
    each = [f"{g.number:06d}.parquet" for g in generations]
    assert len(each) == 6
    assert files["population"] == each
    assert files["evaluations"] == files["items"] == [*each, "final.parquet"]
    assert files["individuals"] == [*each, "final.parquet"]
    assert files["events"] == [each[0], "final.parquet"]


def test_nothing_temporary_is_left(made):
    kept = {".parquet", ".json", ".arrows"}
    others = [p for p in made[0].rglob("*") if p.is_file() and p.suffix not in kept]
    assert [p.name for p in others] == ["lock"]


def test_rows_fit_together(lineage):
    individuals = lineage.individuals.to_pandas()
    assert individuals["id"].is_unique
    known = set(individuals["id"])
    evaluations = lineage.evaluations.to_pandas()
    assert set(evaluations["individual"]) == known
    assert set(lineage.population.to_pandas()["individual"]) <= known
    assert {p for parents in individuals["parents"] for p in parents} <= known
    items = lineage.items.to_pandas()
    means = items.groupby(["individual", "task", "split"])["value"].agg(["mean", "size"])
    scores = evaluations.set_index(["individual", "task", "split"])
    assert len(means) == len(scores)
    joined = scores.join(means)
    assert (joined["score"] - joined["mean"]).abs().max() < 1e-12
    assert (joined["examples"] == joined["size"]).all()
    assert (evaluations["seconds"] >= evaluations["build_seconds"]).all()


def test_the_population_is_ranked_and_its_fitness_is_the_dev_score(lineage):
    population = lineage.population.to_pandas()
    evaluations = lineage.evaluations.to_pandas()
    dev = evaluations[evaluations["split"] == "dev"].set_index("individual")["score"]
    assert (population["fitness"] == population["individual"].map(dev)).all()
    for _, alive in population.groupby("generation"):
        assert list(alive["rank"]) == list(range(len(alive)))
        assert alive["fitness"].is_monotonic_decreasing


def test_every_recipe_rebuilds_to_its_id(lineage):
    table = lineage.individuals
    for individual, text in zip(table["id"].to_pylist(), table["recipe"].to_pylist(), strict=True):
        assert from_json(text).id == individual
        assert lineage.recipe(individual).id == individual


def test_founders_come_first(lineage):
    first = lineage.individuals.to_pylist()[:FOUNDERS]
    assert [r["description"] for r in first] == ["a", "b", "c"]
    assert all((r["generation"], r["operator"], r["parents"]) == (0, "founder", []) for r in first)


def walked(start, edges):
    """Least distances by relaxing every edge until nothing changes."""
    distance = {start: 0}
    changed = True
    while changed:
        changed = False
        for a, b in edges:
            if a in distance and distance[a] + 1 < distance.get(b, 10**9):
                distance[b] = distance[a] + 1
                changed = True
    return distance


@pytest.mark.parametrize("direction", ["ancestors", "descendants"])
def test_ancestors_and_descendants_are_those_of_a_brute_force_walk(direction, lineage):
    rows = lineage.individuals.to_pylist()
    up = [(r["id"], p) for r in rows for p in r["parents"]]
    edges = up if direction == "ancestors" else [(b, a) for a, b in up]
    for row in rows:
        found = getattr(lineage, direction)(row["id"])
        distances = dict(zip(found["id"].to_pylist(), found["distance"].to_pylist(), strict=True))
        assert distances == walked(row["id"], edges)
        assert found["distance"].to_pylist() == sorted(distances.values())
        assert found.column_names == [*FAMILY_COLUMNS, "distance"]


def test_everybody_descends_from_the_founders(lineage):
    founders = {r["id"] for r in lineage.individuals.to_pylist() if r["operator"] == "founder"}
    for individual in lineage.individuals["id"].to_pylist():
        assert founders & set(lineage.ancestors(individual)["id"].to_pylist())


def test_an_individual_is_found_by_id_or_prefix(lineage):
    ids = lineage.individuals["id"].to_pylist()
    assert lineage.find(ids[5]) == ids[5]
    assert lineage.find(ids[5][:16]) == ids[5]
    assert lineage.ancestors(ids[5][:16]).equals(lineage.ancestors(ids[5]))


def test_a_founder_is_found_by_its_name(lineage):
    for row in lineage.individuals.to_pylist():
        if row["operator"] == "founder":
            assert lineage.find(row["description"]) == row["id"]
    with pytest.raises(EvoError, match="no individual's id begins with 'base'"):
        lineage.find("base")  # the founders' ancestor is no individual of this run


def test_what_finds_nobody_or_several_is_refused(lineage):
    ids = lineage.individuals["id"].to_pylist()
    common = next(c for c in "0123456789abcdef" if sum(i.startswith(c) for i in ids) > 1)
    several = sum(i.startswith(common) for i in ids)
    with pytest.raises(EvoError, match=f"{several} ids begin with '{common}'"):
        lineage.find(common)
    for wrong in ("xyz", "", ids[0] + "0", ids[0].upper() + "?"):
        with pytest.raises(EvoError, match=r"no individual's id begins with .*evo lineage"):
            lineage.find(wrong)
    with pytest.raises(EvoError, match="no individual's id begins"):
        lineage.ancestors("xyz")


def test_best_is_the_winner_of_the_summary(made, lineage):
    import json

    winner = json.loads((made[0] / "summary.json").read_text())["winner"]["id"]
    assert lineage.best() == lineage.find("best") == winner
    assert lineage.recipe("best").id == winner
    assert lineage.ancestors("best")["id"][0].as_py() == winner


def test_a_table_that_does_not_exist_is_refused_with_those_that_do(lineage):
    with pytest.raises(EvoError, match="no table 'people'; there are: individuals, evaluations"):
        lineage.table("people")


def test_a_running_run_can_be_read(tmp_path):
    with Evolution(toy_config(tmp_path / "f"), tmp_path / "run") as evolution:
        other = evo.lineage.open(tmp_path / "run")
        with pytest.raises(EvoError, match="no individual has been evaluated yet"):
            other.best()
        for name, schema in SCHEMAS.items():
            assert other.table(name).equals(schema.empty_table())
        with pytest.raises(EvoError, match="all 0 individuals"):
            other.find("a")
        for generation in evolution:
            assert set(other.population["generation"].to_pylist()) == set(
                range(generation.number + 1)
            )
            assert other.individuals.num_rows == generation.evaluations
            assert other.evaluations.num_rows == generation.evaluations
            assert other.best() == generation.best.candidate.id == evolution.best.id
            assert evolution.lineage.individuals.equals(other.individuals)
            if generation.number == 3:
                break


def test_a_run_that_is_thrown_away_keeps_its_finished_generations(tmp_path):
    with Evolution(toy_config(tmp_path / "f"), tmp_path / "run") as evolution:
        for generation in evolution:
            if generation.number == 2:
                break
    found = evo.lineage.open(tmp_path / "run")
    assert found.individuals.num_rows == generation.evaluations
    assert found.best() == generation.best.candidate.id


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage"])
@pytest.mark.parametrize("name", SCHEMAS)
def test_a_damaged_file_is_named(name, damage, tmp_path):
    run_dir, _ = make_run(tmp_path, "random_search", budget={"generations": 1})
    file = run_dir / "lineage" / name / "000000.parquet"
    data = file.read_bytes()
    file.write_bytes(
        {"truncated": data[: len(data) // 2], "empty": b"", "garbage": b"x" * 500}[damage]
    )
    with pytest.raises(EvoError, match=f"{name}.*000000.parquet"):
        evo.lineage.open(run_dir).table(name)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_flipped_bit_is_noticed(name, tmp_path):
    run_dir, _ = make_run(tmp_path, "random_search", budget={"generations": 1})
    file = run_dir / "lineage" / name / "000000.parquet"
    data = file.read_bytes()
    for at in range(0, len(data), max(1, len(data) // 50)):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(EvoError, match=r"000000\.parquet: damaged"):
            evo.lineage.open(run_dir).table(name)


def test_a_damaged_summary_is_named(tmp_path):
    run_dir, _ = make_run(tmp_path, "random_search", budget={"generations": 1})
    for text in ("{", "[]", ""):
        (run_dir / "summary.json").write_text(text)
        with pytest.raises(EvoError, match=r"summary\.json: damaged"):
            evo.lineage.open(run_dir).best()


def test_a_folder_without_a_run_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file", str(tmp_path)):
        with pytest.raises(EvoError, match="no run here"):
            evo.lineage.open(path)


def test_lineage_gives_frames_and_arrow(made):
    found = Lineage(made[0])
    assert isinstance(found.individuals, pa.Table)
    frame = found.individuals.to_pandas()
    assert isinstance(frame, pd.DataFrame)
    assert {"founder", "succession"} <= set(frame["operator"])
    founders = [from_json(r) for r in frame["recipe"][:FOUNDERS]]
    assert all(isinstance(f, Founder) and len(f.digest) == 64 for f in founders)
