"""The command line as people and scripts meet it: real processes, their output and exit codes."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.torch import load_file
from toys import write_founders

import evo.cli
from evo.files import free_folder
from evo.lineage import SCHEMAS

EVO = Path(sys.executable).parent / "evo"
ENVIRONMENT = {**os.environ, "COLUMNS": "140"}
# A process of the real command takes seconds to import torch: most cases run many commands in one.


def shell(*arguments, cwd, **options):
    """One real process of the console script."""
    return subprocess.run(
        [EVO, *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        timeout=120,
        **options,
    )


@pytest.fixture
def command(capfdbinary, monkeypatch, tmp_path):
    """``main`` with arguments in this process: (exit code, bytes of stdout, text of stderr)."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["evo", *map(str, arguments)])
        monkeypatch.setattr(sys, "path", [*sys.path])
        code = 0
        try:
            evo.cli.main()
        except SystemExit as done:
            code = done.code
        out, err = capfdbinary.readouterr()
        return code, out, err.decode()

    return command


def write_config(folder, **changes):
    paths = write_founders(folder / "founders")
    data = {
        "base": "founders/base.safetensors",
        "founders": {n: str(p) for n, p in paths.items() if n != "base"},
        "engine": {"kind": "module", "build": "toys:build"},
        "tasks": [
            {
                "name": "toy",
                "metric": "toys:nearness",
                "data": {"dev": "dev", "select": "select", "test": "test"},
            }
        ],
        "algorithm": "genome_plus",
        "pool": {"kind": "local"},
        "budget": {"evaluations": 40},
        **changes,
    }
    (folder / "toy.yaml").write_text(yaml.safe_dump(data))
    return folder / "toy.yaml"


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder in which `evo run toy.yaml --set ...` ran once, and that process."""
    folder = tmp_path_factory.mktemp("cli")
    write_config(folder)
    done = shell("run", "toy.yaml", "--set", "seed=7", "--set", "budget.evaluations=50", cwd=folder)
    return folder, done


@pytest.fixture(scope="module")
def run_dir(first):
    return first[0] / "runs" / "toy"


def test_help_lists_all_commands_without_loading_torch(tmp_path):
    done = shell("--help", cwd=tmp_path)
    assert done.returncode == 0
    for name in ("run", "lineage", "export", "demo", "zoo"):
        assert f"\n  {name} " in done.stdout.decode()
    code = (
        "import sys; from evo.cli import main\n"
        "for arguments in (['--help'], ['run', '--help'], ['zoo', 'build', '-h'], ['--version']):\n"
        "    sys.argv = ['evo', *arguments]\n"
        "    try: main()\n"
        "    except SystemExit as done: assert not done.code, done.code\n"
        "heavy = {'torch', 'ray', 'transformers', 'pyarrow', 'pandas', 'numpy', 'pydantic'}\n"
        "sys.exit(str(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_run_prints_its_table_and_keeps_progress_apart(first, run_dir):
    _, done = first
    assert done.returncode == 0, done.stderr.decode()
    out, err = done.stdout.decode(), done.stderr.decode()
    summary = json.loads((run_dir / "summary.json").read_text())
    assert (summary["seed"], summary["evaluations"]) == (7, 50)
    for row in [summary["winner"], *summary["baselines"]]:
        line = next(line for line in out.splitlines() if line.startswith(f"│ {row['name']} "))
        assert f"{row['test']:.3f}" in line
    assert f"50 evaluations on {summary['examples']} dev examples in" in out
    assert summary["winner"]["id"][:12] in out
    assert "generation" not in out
    assert "generation   0  best 0." in err
    assert "evaluations 50/50" in err
    assert "Traceback" not in err
    assert "\x1b" not in out + err


def test_a_second_run_gets_a_folder_of_its_own(first, command):
    folder, _ = first
    before = {p: p.stat().st_mtime_ns for p in (folder / "runs" / "toy").rglob("*")}
    os.chdir(folder)
    code, out, _ = command("run", folder / "toy.yaml", "--set", "budget.evaluations=5")
    assert code == 0
    assert b"runs/toy-2/summary.json" in out
    assert {p: p.stat().st_mtime_ns for p in (folder / "runs" / "toy").rglob("*")} == before


def test_a_run_folder_can_be_chosen_but_not_reused(command, tmp_path):
    config = write_config(tmp_path, budget={"evaluations": 5})
    assert command("run", config, "--run-dir", "deep/mine")[0] == 0
    assert (tmp_path / "deep" / "mine" / "summary.json").is_file()
    code, out, err = command("run", config, "--run-dir", "deep/mine")
    assert (code, out) == (2, b"")
    assert "Error: deep/mine: there is a run already" in err


def test_an_algorithm_can_be_chosen_by_its_name(command, tmp_path):
    config = write_config(tmp_path, algorithm={"name": "genome", "sigma": 0.1})
    assert command("run", config, "--run-dir", "r", "--set", "algorithm=random_search")[0] == 0
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["algorithm"] == "random_search"


def users_mistakes(run_dir):
    return {
        "no config": (["run", "nowhere.yaml"], "'nowhere.yaml' does not exist"),
        "a folder as config": (["run", "."], "'.' is a directory"),
        "unknown command": (["runn"], "No such command 'runn'"),
        "unknown option": (["run", "toy.yaml", "--sett", "a=1"], "No such option"),
        "no argument": (["run"], "Missing argument 'CONFIG'"),
        "bad key": (["run", "toy.yaml", "--set", "budgett.x=1"], "Did you mean 'budget'?"),
        "bad function": (
            ["run", "toy.yaml", "--set", "engine.build=toys:bild"],
            "Did you mean build",
        ),
        "bad metric": (["run", "toy.yaml", "--set", "tasks.0.metric=toys:x"], "has no 'x'"),
        "no module": (["run", "toy.yaml", "--set", "engine.build=toyz:build"], "no module 'toyz'"),
        "no run": (["lineage", "."], "no run here"),
        "unknown table": (["lineage", run_dir, "--table", "people"], "no table 'people'"),
        "unknown format": (["lineage", run_dir, "--format", "xml"], "'xml' is not one of"),
        "unknown individual": (["lineage", run_dir, "--ancestors", "xyz"], "begins with 'xyz'"),
        "no rows": (["lineage", run_dir, "--limit", "0"], "0 is not in the range"),
        "both ways": (["lineage", run_dir, "--ancestors", "best", "--descendants", "best"], "both"),
        "ancestors in items": (
            ["lineage", run_dir, "--table", "items", "--ancestors", "best"],
            "goes with the table individuals",
        ),
        "export of nobody": (["export", run_dir, "xyz", "--out", "new"], "begins with 'xyz'"),
        "export of no run": (["export", ".", "--out", "new"], "no run here"),
        "export to what exists": (["export", run_dir, "--out", "full"], "full: exists already"),
        "export without out": (["export", run_dir], "Missing option '--out'"),
        "no zoo": (["zoo", "task", ".", "--mix", "swap:1", "--name", "x"], "no zoo here"),
    }


@pytest.mark.parametrize("case", users_mistakes(None))
def test_a_users_mistake_ends_with_2_and_no_traceback(case, command, run_dir, tmp_path):
    write_config(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    arguments, fragment = users_mistakes(run_dir)[case]
    code, out, err = command(*arguments)
    assert (code, out) == (2, b"")
    assert fragment in err
    assert "Traceback" not in err
    assert not (tmp_path / "new").exists()


def test_a_users_mistake_ends_a_real_process_with_2(tmp_path):
    done = shell("run", "nowhere.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert "'nowhere.yaml' does not exist" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert not list(tmp_path.iterdir())


def test_founders_that_all_fail_are_the_users_mistake(command, tmp_path):
    task = {"name": "toy", "metric": "toys:broken_for_b", "data": {"dev": "dev"}}
    config = write_config(tmp_path, tasks=[task])
    like_b = write_founders(tmp_path / "b", {"x": (0.0, 0.0, 0.0, 0.5), "y": (1.0, 0.0, 0.0, 0.5)})
    code, _, err = command(
        "run",
        config,
        "--set",
        f"founders={{x: {like_b['x']}, y: {like_b['y']}}}",
    )
    assert code == 2
    assert "every founder failed" in err
    assert "no fitness for b" in err


def test_our_fault_ends_with_1_and_a_traceback(command, monkeypatch, run_dir):
    def broken(*_, **__):
        raise RuntimeError("a bolt came loose")

    monkeypatch.setattr(evo.lineage, "open", broken)
    code, out, err = command("lineage", run_dir)
    assert (code, out) == (1, b"")
    assert "Traceback" in err
    assert "RuntimeError: a bolt came loose" in err
    assert "Internal error; please report it" in err


def test_an_interrupt_is_no_fault(command, monkeypatch, run_dir):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(evo.lineage, "open", interrupted)
    code, _, err = command("lineage", run_dir)
    assert code == 130
    assert "Interrupted." in err
    assert "Traceback" not in err


@pytest.mark.parametrize("table", SCHEMAS)
def test_every_format_holds_the_whole_table(table, command, run_dir):
    expected = evo.lineage.open(run_dir).table(table)
    rows = expected.to_pylist()
    outputs = {}
    for form in ("table", "csv", "json", "parquet"):
        code, outputs[form], err = command("lineage", run_dir, "--table", table, "--format", form)
        assert (code, err) == (0, "")
    assert pq.read_table(io.BytesIO(outputs["parquet"])).equals(expected)
    frame = pd.read_csv(io.BytesIO(outputs["csv"]))
    assert list(frame.columns) == expected.column_names
    assert len(frame) == len(rows)
    lines = [json.loads(line) for line in outputs["json"].splitlines()]
    assert [line.keys() for line in lines] == [row.keys() for row in rows]
    assert len(outputs["table"].splitlines()) == len(rows) + 1
    if table == "individuals":
        assert lines == rows
        assert list(frame["id"]) == [r["id"] for r in rows]
        parents = frame["parents"].fillna("").str.split()
        assert list(parents) == [r["parents"] for r in rows]
    if table == "evaluations":
        assert lines == rows
        assert list(frame["score"]) == pytest.approx([r["score"] for r in rows])


def test_a_real_process_writes_nothing_but_the_table(first, run_dir):
    done = shell("lineage", run_dir, "--format", "parquet", cwd=first[0])
    assert (done.returncode, done.stderr) == (0, b"")
    table = pq.read_table(io.BytesIO(done.stdout))
    assert table.equals(evo.lineage.open(run_dir).individuals)


def test_the_printed_individuals_are_readable(command, run_dir):
    _, out, _ = command("lineage", run_dir)
    header, *lines = out.decode().splitlines()
    assert header.split() == ["id", "generation", "operator", "parents", "description"]
    assert lines[0].split()[1:3] == ["0", "founder"]
    assert all(len(line.split()[0]) == 12 for line in lines)


def test_ancestors_and_descendants_and_limits(command, run_dir):
    lineage = evo.lineage.open(run_dir)
    for option in ("ancestors", "descendants"):
        for individual in ("best", lineage.individuals["id"][0].as_py()[:16]):
            code, out, _ = command(
                "lineage", run_dir, f"--{option}", individual, "--format", "json"
            )
            assert code == 0
            rows = [json.loads(line) for line in out.splitlines()]
            assert (
                rows
                == getattr(lineage, option)(individual, SCHEMAS["individuals"].names).to_pylist()
            )
    code, out, _ = command("lineage", run_dir, "--limit", "3", "--format", "csv")
    assert list(pd.read_csv(io.BytesIO(out))["id"]) == lineage.individuals["id"].to_pylist()[:3]
    assert command("lineage", run_dir, "--ancestors", "best", "--limit", "1")[1].count(b"\n") == 2


def test_export_writes_a_checkpoint_and_says_where(command, run_dir, tmp_path):
    lineage = evo.lineage.open(run_dir)
    best = lineage.best()
    for arguments in ([], ["best"], [best[:16]]):
        out = tmp_path / f"out{len(arguments)}{len(''.join(arguments))}"
        code, printed, err = command("export", run_dir, *arguments, "--out", out)
        assert (code, err) == (0, "")
        assert printed.decode() == f"{best[:12]} -> {out}\n"
        assert json.loads((out / "recipe.json").read_text())
        assert load_file(out / "model.safetensors")["x"].shape == (4,)


def test_export_does_not_depend_on_where_one_stands(command, tmp_path, monkeypatch):
    write_config(tmp_path, budget={"evaluations": 5})
    assert command("run", "toy.yaml", "--run-dir", "r")[0] == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert command("export", "../r", "--out", "best")[0] == 0


def test_export_after_a_founder_changed_is_refused(command, tmp_path):
    write_config(tmp_path, budget={"evaluations": 5})
    assert command("run", "toy.yaml", "--run-dir", "r")[0] == 0
    write_founders(
        tmp_path / "founders", {n: (9.0, 9.0, 9.0, float(i)) for i, n in enumerate("abc")}
    )
    code, out, err = command("export", "r", "--out", "best")
    assert (code, out) == (2, b"")
    assert "If its files changed since, restore them" in err
    assert not (tmp_path / "best").exists()


def test_export_of_a_run_whose_config_is_damaged_is_refused(command, tmp_path):
    write_config(tmp_path, budget={"evaluations": 5})
    assert command("run", "toy.yaml", "--run-dir", "r")[0] == 0
    (tmp_path / "r" / "config.json").write_text("{")
    code, _, err = command("export", "r", "--out", "best")
    assert code == 2
    assert "r/config.json: the run's config is no longer valid" in err
    (tmp_path / "r" / "config.json").unlink()
    assert command("export", "r", "--out", "best")[0] == 2


@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_reader_that_goes_away_is_no_fault(form, first, run_dir):
    """`evo lineage ... | head -c 1`, the reader gone before all is written."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [EVO, "lineage", run_dir, "--table", "items", "--format", form],
        cwd=first[0],
        env=ENVIRONMENT,
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    os.close(reader)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")


def test_free_folders_count_up(tmp_path):
    names = []
    for _ in range(3):
        folder = free_folder(tmp_path / "runs" / "x.y")
        folder.mkdir(parents=True)
        names.append(folder.name)
    assert names == ["x.y", "x.y-2", "x.y-3"]


def test_failures_are_counted_while_one_watches(command, tmp_path):
    task = {"name": "toy", "metric": "toys:broken_for_b", "data": {"dev": "dev"}}
    write_config(tmp_path, tasks=[task], budget={"evaluations": 10})
    code, _, err = command("run", "toy.yaml", "--run-dir", "r")
    assert code == 0
    assert "failed 1" in err
