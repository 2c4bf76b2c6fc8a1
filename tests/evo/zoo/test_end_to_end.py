"""The main job on real models, by the real command line: a small zoo, Ray, an exported winner."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

import evo
from evo.zoo.build import build
from evo.zoo.plan import zoo_plan

EVO = Path(sys.executable).parent / "evo"
pytestmark = pytest.mark.slow

# Plain transformers and nothing of ours: greedy generation, prompts of one length at a time.
SCORE = """
import collections, json, sys, torch, transformers
folder, task = sys.argv[1:]
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
rows = [json.loads(line) for line in open(task)]
groups = collections.defaultdict(list)
for row in rows:
    ids = tokenizer(row["prompt"]).input_ids
    groups[len(ids)].append((ids, row["answer"]))
right = 0
for length, group in groups.items():
    prompts = torch.tensor([ids for ids, _ in group])
    told = model.generate(
        prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=8, do_sample=False
    )[:, length:]
    for out, (_, answer) in zip(told, group):
        said = tokenizer.decode(out, skip_special_tokens=True)
        right += said == answer and bool((out == tokenizer.eos_token_id).any())
print(right / len(rows), any(m.startswith(("evo", "operators", "cluster", "fitness")) for m in sys.modules))
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A third of the training of the demo's: models that know something, in half a minute."""
    folder = tmp_path_factory.mktemp("zoo") / "zoo"
    build(folder, plan=zoo_plan(base_steps=200, skill_steps=60, alphabet_steps=60))
    return folder


@pytest.fixture(scope="module")
def finished(zoo):
    """The demo's config on the small zoo, with fewer evaluations."""
    run = zoo.parent / "run"
    settings = [f"root={zoo}", "budget.evaluations=60", "baselines.static=[ties]"]
    command = [EVO, "run", ROOT / "examples" / "demo.yaml", "--run-dir", run]
    done = subprocess.run(
        [*command, *(a for s in settings for a in ("--set", s))],
        capture_output=True,
        text=True,
        check=True,
    )
    return run, done


def test_the_run_reports_winner_and_baselines(finished):
    run, done = finished
    summary = json.loads((run / "summary.json").read_text())
    assert summary["evaluations"] == 60
    kinds = [b["kind"] for b in summary["baselines"]]
    assert kinds == ["founder"] * 10 + ["average", "ensemble", "random_search", "static"]
    founders = [b for b in summary["baselines"] if b["kind"] == "founder"]
    best_founder = max(founders, key=lambda b: b["dev"])  # a finalist, so select chose between them
    assert summary["winner"]["select"] >= best_founder["select"] > 0
    assert "winner" in done.stdout
    assert "generation   5" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_exported_winner_scores_the_same_in_plain_transformers(finished, zoo):
    run, _ = finished
    out = run.parent / "best"
    subprocess.run([EVO, "export", run, "best", "--out", out], check=True, capture_output=True)
    task = zoo / "tasks" / "alien.test.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", SCORE, out, task],
        check=True,
        capture_output=True,
        text=True,
        cwd="/",
    )
    score, ours_imported = done.stdout.split()
    assert ours_imported == "False"
    assert float(score) == json.loads((run / "summary.json").read_text())["winner"]["test"]


def test_the_same_seed_gives_the_same_run_on_ray_and_in_this_process(finished, zoo):
    run, _ = finished
    config = evo.load_config(
        ROOT / "examples" / "demo.yaml",
        [f"root={zoo}", "budget.evaluations=60", "baselines={}", "pool.kind=local"],
    )
    with evo.Evolution(config, run.parent / "local") as local:
        for _ in local:
            pass
        there, here = evo.lineage.open(run), local.lineage
        for table, columns in (
            ("individuals", ["id", "generation", "parents", "recipe"]),
            ("population", ["generation", "rank", "individual", "fitness"]),
        ):
            a, b = (x.table(table).select(columns) for x in (there, here))
            assert a.slice(0, b.num_rows).equals(b)
        dev = [r for r in there.evaluations.to_pylist() if r["split"] == "dev"]
        for a, b in zip(dev, here.evaluations.to_pylist(), strict=False):
            assert (a["individual"], a["score"]) == (b["individual"], b["score"])


def test_the_loop_example_runs(zoo, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "evolve.py", zoo, tmp_path],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "winner on test" in done.stdout
    assert (tmp_path / "best" / "config.json").is_file()
