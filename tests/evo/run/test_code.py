"""Which source code decides scores or the search: what a resumed run and the evaluation cache compare."""

import os
import subprocess
import sys

import pytest
from toys import write_founders

from evo.run.code import SCORE_CODE, SEARCH_CODE, code_digests, user_code_digests

DECIDES_NOTHING = ("evo/cli", "evo/watch", "evo/report", "evo/trackers", "cluster/ray", "evo/run")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder: a metric, its helpers, a package, and files that it does not import."""
    files = {
        "scores": "import torch\nfrom helpers import near\n\ndef score(module, split):\n"
        "    from parts import late\n    return near(module)\n",
        "helpers": "import math, deeper.inner\n\ndef near(module):\n    return module.x.tolist()\n",
        "deeper/__init__": "",
        "deeper/inner": "from . import constants\n",
        "deeper/constants": "A = 1\n",
        "deeper/apart": "B = 1\n",
        "parts": "late = 1\n",
        "unused": "",
        "model": "import torch\n\nclass Point(torch.nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.x = torch.nn.Parameter(torch.zeros(4))\n",
    }
    for name, text in files.items():
        path = tmp_path / "mine" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "mine")
    return tmp_path / "mine"


def test_modules_of_a_function_are_those_it_imports_from_its_own_folder(folder):
    found = user_code_digests(["scores:score"])
    used = ["deeper", "deeper.constants", "deeper.inner", "helpers", "parts", "scores"]
    assert sorted(found) == used
    assert "scores" not in sys.modules  # nothing is executed


@pytest.mark.parametrize("name", ["helpers", "deeper.constants", "parts"])
def test_a_change_in_a_helper_changes_its_digest_alone(name, folder):
    path = folder.joinpath(*name.split(".")).with_suffix(".py")
    before = user_code_digests(["scores:score"])
    path.write_text(path.read_text() + "# changed\n")
    after = user_code_digests(["scores:score"])
    assert [module for module in before if before[module] != after[module]] == [name]


def test_changes_in_an_installed_package_count_by_version_and_not_by_file():
    assert user_code_digests(["json.decoder:x"]).keys() <= {
        "json",
        "json.decoder",
        "json.scanner",
        "json.encoder",
    }


def test_code_that_decides_no_score_and_no_search_is_not_compared():
    compared = {*code_digests(SCORE_CODE), *code_digests(SEARCH_CODE)}
    for name in DECIDES_NOTHING:
        assert not any(c == name or c.startswith(f"{name}/") for c in compared)
    assert "evo" not in compared
    assert "cluster" not in compared


def test_a_changed_helper_of_a_metric_stops_the_resume_and_the_reuse(folder, tmp_path):
    paths = write_founders(tmp_path / "f")
    config = tmp_path / "toy.yaml"
    founders = "".join(f"  {n}: {paths[n]}\n" for n in "abc")
    config.write_text(
        f"base: {paths['base']}\nfounders:\n{founders}"
        "engine: {kind: module, build: 'model:Point'}\npool: {kind: local}\n"
        "tasks: [{name: t, metric: 'scores:score', data: {dev: dev}}]\nbudget: {evaluations: 12}\n"
    )
    env = dict(os.environ, PYTHONPATH=f"{folder}:{os.environ.get('PYTHONPATH', '')}")

    def evo(*arguments):
        code = "import sys; from evo.cli import main; main()"
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path)

    assert evo("run", config, "--run-dir", "run").returncode == 0
    for path in (tmp_path / "run" / "lineage").glob("*/final.*"):
        path.unlink()  # as if it had been stopped before its end
    (folder / "unused.py").write_text("changed = 1\n")
    helper = folder / "helpers.py"
    helper.write_text(helper.read_text() + "\nCHANGED = 1\n")
    again = evo("resume", "run")
    assert again.returncode == 2
    assert "your module helpers has changed since the run started" in again.stderr
    assert "unused" not in again.stderr
    other = evo("run", config, "--run-dir", "other", "--reuse", "run")
    assert "not reused: different module helpers" in other.stdout
