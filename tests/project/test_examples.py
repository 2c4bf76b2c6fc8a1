"""The examples run as they stand, and say what they should."""

import re
import subprocess
import sys

import pytest
from places import EXAMPLES


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.slow
def test_digits_evolves_a_classifier_that_beats_both_specialists(tmp_path):
    output = run(EXAMPLES / "digits.py", tmp_path / "digits", cwd=tmp_path)
    rows = [line.split() for line in output.splitlines() if "±" in line]
    scores = {row[0]: float(row[-3]) for row in rows}
    assert scores["winner"] > max(scores["low"], scores["high"]) + 0.1
    assert (tmp_path / "digits" / "best" / "model.safetensors").is_file()


def test_a_loop_of_ones_own_beats_the_founders(tmp_path):
    output = run(EXAMPLES / "own_loop.py", tmp_path, cwd=tmp_path)
    founder, best = (float(line.split()[-1]) for line in output.splitlines())
    assert best > founder + 1.0
    assert (tmp_path / "best.safetensors").is_file()


def test_an_algorithm_of_ones_own_runs_by_its_name(tmp_path):
    output = run(EXAMPLES / "own_algorithm.py", tmp_path / "run", cwd=tmp_path)
    found = re.search(r"own_algorithm:Climber: ([\d.]+), best founder: ([\d.]+)", output)
    assert float(found[1]) > float(found[2]) + 0.1


def test_networks_in_memory_evolve_under_a_function(tmp_path):
    output = run(EXAMPLES / "in_memory.py", tmp_path / "run", cwd=tmp_path)
    scores = {row[0]: float(row[1]) for row in map(str.split, output.splitlines()[:3])}
    assert scores["evolved"] > max(scores["left"], scores["right"]) + 0.1


def test_metrics_of_ones_own_are_searched_on(tmp_path):
    output = run(EXAMPLES / "own_metric.py", tmp_path / "run", cwd=tmp_path)
    errors = {row[0]: float(row[2]) for row in map(str.split, output.splitlines()[:3])}
    assert errors["winner"] < min(errors["left"], errors["right"]) / 2


def test_examples_are_short():
    assert len((EXAMPLES / "evolve.py").read_text().splitlines()) < 60
