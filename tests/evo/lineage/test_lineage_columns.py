"""Reading by column: every byte read is checked, other columns are not read, other schemas are refused."""

import json
import shutil
import subprocess
import sys

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from toys import toy_config

import evo.lineage
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.lineage import SCHEMAS
from evo.lineage.schema_page import schema_markdown
from evo.lineage.storage.commits import commits
from evo.report.status import read_status


def make_run(folder, **changes):
    config = toy_config(folder / "f", algorithm={"name": "genome_plus"}, **changes)
    with Evolution(config, folder / "run") as evolution:
        list(evolution)
        evolution.finish()
    return folder / "run"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("columns"), budget={"generations": 3})


@pytest.fixture
def copy(run_dir, tmp_path):
    shutil.copytree(run_dir, tmp_path / "copy")
    return tmp_path / "copy"


def flip(file, at):
    data = bytearray(file.read_bytes())
    data[at] ^= 1 << (at % 8)
    file.write_bytes(data)


@pytest.mark.parametrize("table", SCHEMAS)
def test_columns_are_those_of_the_whole_table(table, run_dir):
    whole = evo.lineage.open(run_dir).table(table)
    for column in SCHEMAS[table].names:
        assert evo.lineage.open(run_dir).table(table, [column]).equals(whole.select([column]))
    backwards = list(reversed(SCHEMAS[table].names))
    assert evo.lineage.open(run_dir).table(table, backwards).equals(whole.select(backwards))


def test_rows_are_chosen_by_columns_that_need_not_be_shown(run_dir):
    lineage = evo.lineage.open(run_dir)
    frame = lineage.evaluations.to_pandas()
    where = (pc.field("split") == "test") & (pc.field("score") > 0.5)
    found = lineage.table("evaluations", ["individual"], where)
    wanted = frame[(frame["split"] == "test") & (frame["score"] > 0.5)]
    assert found.column_names == ["individual"]
    assert 0 < found.num_rows < len(frame)
    assert found["individual"].to_pylist() == list(wanted["individual"])


def test_a_column_or_condition_that_does_not_fit_is_refused(run_dir):
    lineage = evo.lineage.open(run_dir)
    with pytest.raises(EvoError, match="has no column 'name'; there are: id, generation"):
        lineage.table("individuals", ["id", "name"])
    with pytest.raises(EvoError, match=r"no condition on these columns: id, generation"):
        lineage.table("individuals", ["id"], pc.field("name") == "x")


@pytest.mark.parametrize("table", SCHEMAS)
def test_checks_cover_every_byte_of_a_file(table, run_dir):
    entry = commits(run_dir / "lineage")[0]
    checks = entry.files[table]
    data = (run_dir / "lineage" / table / "000000.parquet").read_bytes()
    covered = np.zeros(len(data), bool)
    covered[:4] = True  # the format's name, which is compared
    for spans in (checks.footer, *checks.columns.values()):
        for start, length in zip(spans[::3], spans[1::3], strict=True):
            assert not covered[start : start + length].any()
            covered[start : start + length] = True
    assert covered.all()


@pytest.mark.parametrize("table", ["population", "events"])
def test_a_flip_of_any_byte_is_noticed_by_the_columns_that_it_is_in(table, copy):
    file = copy / "lineage" / table / "000000.parquet"
    data = file.read_bytes()
    checks = commits(copy / "lineage")[0].files[table]
    right = evo.lineage.open(copy).table(table)
    for at in range(len(data)):
        flip(file, at)
        hit = {
            name
            for name, (start, length, _) in checks.columns.items()
            if start <= at < start + length
        }
        for column in SCHEMAS[table].names:
            if hit and column not in hit:
                found = evo.lineage.open(copy).table(table, [column])
                assert found.equals(right.select([column]))
            else:
                with pytest.raises(EvoError, match=r"000000\.parquet: damaged"):
                    evo.lineage.open(copy).table(table, [column])
        file.write_bytes(data)


def test_a_column_of_many_row_groups_is_checked_to_its_end(tmp_path):
    from evo.lineage.storage.commits import commit

    size = 1_100_000  # pyarrow begins a new row group at 2**20 rows
    rows = pa.table(
        {
            "generation": np.zeros(size, np.int32),
            "rank": np.arange(size, dtype=np.int32),
            "individual": pa.repeat(pa.scalar("a" * 64), size),
            "fitness": np.zeros(size),
        },
        schema=SCHEMAS["population"],
    )
    commit(tmp_path / "lineage", "000000", {"population": rows})
    assert evo.lineage.open(tmp_path).table("population", ["rank"]).num_rows == size
    (entry,) = commits(tmp_path / "lineage")
    start, length, _ = entry.files["population"].columns["rank"][-3:]
    flip(tmp_path / "lineage" / "population" / "000000.parquet", start + length - 1)
    with pytest.raises(EvoError, match=r"000000\.parquet: damaged"):
        evo.lineage.open(tmp_path).table("population", ["rank"])


def test_a_missing_file_is_named(copy):
    file = copy / "lineage" / "evaluations" / "000001.parquet"
    file.unlink()
    lineage = evo.lineage.open(copy)
    assert lineage.table("individuals", ["id"]).num_rows
    for ask in (lineage.best_so_far, lambda: lineage.table("evaluations", ["task"])):
        with pytest.raises(EvoError, match=r"000001\.parquet: damaged \(the file is gone\)"):
            ask()


@pytest.mark.parametrize("table", ["individuals", "commits"])
def test_every_question_notices_a_damaged_family(table, copy):
    file = next((copy / "lineage" / table).glob("000001.*"))
    flip(file, file.stat().st_size // 2)
    for ask in ("ancestors", "descendants", "tree", "find", "recipe", "founder_shares"):
        with pytest.raises(EvoError, match=rf"{file.name}: damaged"):
            getattr(evo.lineage.open(copy), ask)("best" if ask != "find" else "a")


def test_what_was_read_is_not_read_again(copy):
    lineage = evo.lineage.open(copy)
    before = lineage.best_so_far()
    shutil.rmtree(copy / "lineage" / "evaluations")
    assert lineage.best_so_far().equals(before)
    with pytest.raises(EvoError, match="the file is gone"):
        evo.lineage.open(copy).best_so_far()


def test_commits_that_were_set_aside_are_forgotten(copy):
    lineage = evo.lineage.open(copy)
    everybody = lineage.individuals.num_rows
    assert lineage.ancestors("best").num_rows
    commits_folder = copy / "lineage" / "commits"
    first = json.loads((commits_folder / "000000.json").read_text())
    for path in sorted(commits_folder.iterdir())[1:]:
        path.unlink()
    (copy / "summary.json").unlink()
    shutil.copy(commits_folder / "000000.json", copy / "again.json")
    (copy / "again.json").replace(commits_folder / "000000.json")
    assert first["schema"] == "3"
    founders = lineage.individuals
    assert founders.num_rows < everybody
    assert lineage.ancestors("best")["id"].to_pylist() == [lineage.best()]


# -- versions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["file", "commit"])
def test_another_schema_is_refused_with_the_remedy(where, copy):
    if where == "commit":
        file = copy / "lineage" / "commits" / "000001.json"
        data = json.loads(file.read_text())
        file.write_text(json.dumps({**data, "schema": "1"}))
    else:
        from evo.lineage.storage.commits import commit

        rows = pq.read_table(copy / "lineage" / "events" / "000000.parquet")
        rows = rows.replace_schema_metadata({"evo.schema": "1"})
        commit(copy / "lineage", "000004", {"events": rows})
    with pytest.raises(
        EvoError, match=r"schema 1 .*reads schema 3 only. Use the evo-models version"
    ):
        _ = evo.lineage.open(copy).events
    status = read_status(copy)
    assert "written with schema 1 of the lineage" in status.problem


# -- other readers -------------------------------------------------------------------------------


def test_duckdb_opens_the_files_as_they_are(run_dir):
    lineage = evo.lineage.open(run_dir)
    folder = run_dir / "lineage"
    rows = duckdb.sql(
        f"""
        SELECT operator, count(*) AS children, max(fitness) AS best
        FROM '{folder}/individuals/*.parquet' AS i
        JOIN '{folder}/evaluations/*.parquet' AS e ON i.id = e.individual
        WHERE e.split = 'dev' GROUP BY operator ORDER BY operator
        """
    ).fetchall()
    frame = lineage.individuals.to_pandas().merge(
        lineage.evaluations.to_pandas(), left_on="id", right_on="individual"
    )
    frame = frame[frame["split"] == "dev"].groupby("operator")["fitness"].agg(["size", "max"])
    assert rows == [(name, size, best) for name, size, best in frame.itertuples()]
    parents = f"SELECT count(*) FROM (SELECT unnest(parents) FROM '{folder}/individuals/*.parquet')"
    wanted = sum(map(len, lineage.individuals["parents"].to_pylist()))
    assert duckdb.sql(parents).fetchall() == [(wanted,)]


def test_polars_opens_the_files_as_they_are(run_dir):
    lineage = evo.lineage.open(run_dir)
    found = (
        pl.scan_parquet(run_dir / "lineage" / "population" / "*.parquet")
        .group_by("generation")
        .agg(pl.col("fitness").max())
        .sort("generation")
        .collect()
    )
    frame = lineage.population.to_pandas().groupby("generation")["fitness"].max()
    assert found["fitness"].to_list() == list(frame)
    exploded = pl.scan_parquet(run_dir / "lineage" / "individuals" / "*.parquet").explode("parents")
    known = set(lineage.individuals["id"].to_pylist())
    assert set(exploded.collect()["parents"].drop_nulls()) <= known


def test_reading_waits_for_nothing_heavy(run_dir):
    code = f"""
import sys, evo
lineage = evo.lineage.open({str(run_dir)!r})
for ask in ("ancestors", "descendants", "tree", "recipe", "founder_shares"):
    getattr(lineage, ask)("best")
lineage.best_so_far(), lineage.items, lineage.compare("best", "best")
evo.lineage.open([{str(run_dir)!r}]).ancestors(lineage.best())
heavy = {{"torch", "ray", "transformers"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# Together these take several seconds to import. (pyarrow itself imports pandas.)
SLOW = {
    "torch",
    "ray",
    "transformers",
    "numba",
    "scipy",
    "cmaes",
    "pydantic",
    "yaml",
    "safetensors",
}


@pytest.mark.parametrize(
    "arguments", [["status"], ["lineage"], ["lineage", "--tree", "best"], ["report"], ["show"]]
)
def test_the_commands_that_only_read_import_nothing_slow(arguments, copy):
    command = [arguments[0], str(copy), *arguments[1:]]
    code = (
        f"import sys; from evo.cli import cli; cli({command!r}, standalone_mode=False)\n"
        f"found = {SLOW!r} & set(sys.modules)\n"
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_schema_page_tells_of_every_table_and_column():
    page = schema_markdown()
    for name, schema in SCHEMAS.items():
        section = page.split(f"## {name}\n")[1].split("\n## ")[0]
        lines = [line for line in section.splitlines() if line.startswith("| `")]
        assert [line.split("`")[1] for line in lines] == schema.names
        for field, line in zip(schema, lines, strict=True):
            _, _, kind, null, meaning, _ = (part.strip() for part in line.split("|"))
            assert (null == "may be") == field.nullable
            assert kind
            assert meaning == field.metadata[b"doc"].decode()
