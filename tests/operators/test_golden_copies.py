"""tests/golden against the folder that its numbers come from, where that is beside the checkout."""

import json

import pytest
from golden.merge_cases import CASES, TABLE, config_of
from places import GOLDEN, ROOT

from operators.merge import MERGES

ORIGINAL = ROOT.parent / "shared" / "golden"
# Folders of the original, and what the copy calls them.
FOLDERS = {"": "", "configs": "configs", "tensors": "tensors", "seed_operators": "papers"}


@pytest.mark.skipif(not ORIGINAL.is_dir(), reason="no ../shared/golden beside this checkout")
def test_the_copies_are_the_originals():
    for original, copy in FOLDERS.items():
        for file in sorted((ORIGINAL / original).iterdir()):
            if file.is_file() and file.name != "README.md":
                assert (GOLDEN / copy / file.name).read_bytes() == file.read_bytes(), file


def test_every_config_is_compared_by_number_or_by_chance():
    # test_golden_merges and test_merge_command take all of CASES; what is drawn at random has no numbers
    # of its own there, but rates and moments, which test_golden_merges compares.
    by_number = {case["config"] for case in CASES}
    drawn = {f"configs/{f.name}" for f in (GOLDEN / "configs").iterdir()} - by_number
    assert all(MERGES[config_of(config)["merge_method"]].seeded for config in drawn)
    keys = TABLE["stochastic"]["expected"]["0.1.4"]
    measured = {key.split("|")[1] for key in keys if "|" in key}
    assert {config_of(config)["merge_method"] for config in drawn} <= measured
    papers = json.loads((GOLDEN / "papers" / "golden.json").read_text())["cases"]
    assert (len(CASES), len(drawn), len(papers)) == (33, 6, 19)
