"""The benchmarks can be started, take turns, and tell what they found."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from places import BENCHMARKS

SCRIPTS = sorted(p for p in BENCHMARKS.glob("*.py") if "ArgumentParser(" in p.read_text())
# In one process: each alone would spend seconds on importing torch.
HELP_OF_ALL = """
import contextlib, io, runpy, sys
sys.path.insert(0, sys.argv[1])
for script in sys.argv[2:]:
    said = io.StringIO()
    sys.argv = [script, "--help"]
    try:
        with contextlib.redirect_stdout(said):
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        assert not end.code, script
    assert "usage:" in said.getvalue(), script
    print("ok", script)
"""


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import runner

    return runner


def test_every_script_says_how_it_is_used():
    command = [sys.executable, "-c", HELP_OF_ALL, str(BENCHMARKS), *map(str, SCRIPTS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.count("ok ") == len(SCRIPTS) >= 10, done.stderr


def test_candidates_take_turns_and_each_comes_first_once(runner: ModuleType):
    order: list[str] = []

    def candidate(name: str):
        return lambda: order.append(name) or {"seconds": float(len(order))}

    kept: list[list[int]] = []
    rows = runner.alternate(
        {name: candidate(name) for name in "abc"},
        repeats=3,
        keep=lambda rows: kept.append([len(found) for found in rows.values()]),
    )
    assert kept == [[1, 1, 1], [2, 2, 2], [3, 3, 3]]
    assert order == list("abcbcacab")
    assert [row["seconds"] for row in rows["a"]] == [1.0, 6.0, 8.0]


def test_a_summary_is_the_median_with_its_spread(runner: ModuleType):
    rows = [{"seconds": s, "bytes": 1.0} for s in (5.0, 1.0, 2.0)]
    assert runner.summary(rows)["seconds"] == {"median": 2.0, "low": 1.0, "high": 5.0}
    assert runner.medians(rows) == {"seconds": 2.0, "bytes": 1.0}


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_exponent_of_a_power_is_found(runner: ModuleType, power: float):
    x = [1.0, 2.0, 4.0, 8.0]
    assert runner.exponent(x, [3.0 * v**power for v in x]) == pytest.approx(power)


def test_what_is_saved_is_in_the_table(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import results
    from rich.console import Console

    monkeypatch.setattr(results, "FOLDER", tmp_path)
    path = results.save("speed", {"rows": [1]}, "twice as fast")
    saved = json.loads(path.read_text())
    assert saved["rows"] == [1]
    assert saved["machine"]["cores"] >= 1
    assert saved["load"].keys() == {"at_start", "at_end"}
    console = Console(width=80, record=True)
    console.print(results.table(tmp_path))
    assert "twice as fast" in console.export_text()


def test_every_committed_result_has_a_headline():
    for path in (BENCHMARKS / "results").glob("*.json"):
        assert json.loads(path.read_text()).get("headline"), path.name


def test_a_plot_holds_every_point(runner: ModuleType):
    from plot import Panel, svg

    y = [1.0, 2.5, 9.0]
    panel = Panel("a < b", "note", "x", "y", [1.0, 10.0, 100.0], y, y, y)
    drawn = ElementTree.fromstring(svg([panel, panel]))
    names = [element.tag.rpartition("}")[2] for element in drawn.iter()]
    assert names.count("circle") == 6
    assert names.count("polyline") == 2
