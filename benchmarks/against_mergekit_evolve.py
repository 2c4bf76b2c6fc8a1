"""Evaluations a minute, against mergekit-evolve: the same models, items and machine, one worker each.

python benchmarks/against_mergekit_evolve.py [--repeats 2] [--evaluations 200] [--theirs 14]

Models: a Llama of 0.95M parameters in bfloat16 and three fine-tunes of it, all random. Items: 60 questions
with 4 choices of one token each, which is what lm-eval is quickest at (one forward pass a question).
Both search with CMA-ES for one weight a founder (task arithmetic). mergekit-evolve is installed from
PyPI into ``build/mergekit-evolve-venv`` on the first run, and patched to run without a GPU: see
``mergekit_evolve_driver.py``. Every process has one thread. Only the search is counted, start-up is told
apart. Candidates take turns; medians, lowest and highest over repeats.

That both score alike is checked: the accuracy of each founder, by lm-eval and by ours.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import mergekit_env
import yaml
from one_search import search
from results import save
from runner import Rows, alternate, summary
from tiny_models import write_models, write_questions

ITEMS, VOCABULARY = 60, 768
FOUNDERS = ("a", "b", "c")
OURS = {
    "ours, local": ["pool.kind=local"],
    "ours, ray, 1 host": ["pool.kind=ray", "pool.hosts=1"],
    "ours, ray, 2 hosts": ["pool.kind=ray", "pool.hosts=2"],
}
THEIRS = {"mergekit-evolve, in memory": ["--in-memory"], "mergekit-evolve, on disk": []}
LM_EVAL = """
import json, sys, lm_eval, lm_eval.tasks
tasks = lm_eval.tasks.TaskManager(include_path=sys.argv[1])
for path in sys.argv[2:]:
    found = lm_eval.simple_evaluate(model="hf", model_args=dict(pretrained=path, dtype="bfloat16"),
        tasks=["questions"], task_manager=tasks, batch_size=64, device="cpu", verbosity="ERROR")
    print(json.dumps(found["results"]["questions"]["acc,none"]))
"""


def write_items(folder: Path) -> None:
    """The same items for both: JSON Lines, and lm-eval's description of them."""
    write_questions(folder / "items.jsonl", ITEMS, VOCABULARY)
    task = {
        "task": "questions",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "items.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    (folder / "tasks").mkdir()
    (folder / "tasks" / "questions.yaml").write_text(yaml.safe_dump(task))


def write_configs(folder: Path) -> None:
    ours = {
        "base": "base",
        "founders": list(FOUNDERS),
        "tasks": [
            {
                "name": "questions",
                "metric": "accuracy",
                "files": {"dev": str(folder / "items.jsonl")},
            }
        ],
        "algorithm": {"name": "recipe_search"},
    }
    theirs = {
        "genome": {
            "models": [str(folder / name) for name in FOUNDERS],
            "merge_method": "task_arithmetic",
            "base_model": str(folder / "base"),
        },
        "tasks": [{"name": "questions", "metric": "acc,none"}],
        "apply_chat_template": False,
        "fewshot_as_multiturn": False,
    }
    (folder / "ours.yaml").write_text(yaml.safe_dump(ours))
    (folder / "theirs.yaml").write_text(yaml.safe_dump(theirs))


def in_their_environment(programs: Path, folder: Path, arguments: list[Any]) -> list[str]:
    """Lines that Python in mergekit's environment prints; what it leaves behind stays in ``folder``."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "OMP_NUM_THREADS": "1",
        "HF_HOME": str(mergekit_env.CACHE / "hf-home"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    command = [str(programs / "python"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return done.stdout.splitlines()


def run_theirs(
    programs: Path, folder: Path, evaluations: int, options: list[str]
) -> dict[str, float]:
    storage = folder / "storage"
    shutil.rmtree(storage, ignore_errors=True)
    driver = Path(__file__).with_name("mergekit_evolve_driver.py")
    arguments = [driver, folder / "theirs.yaml", "--storage-path", storage]
    arguments += ["--task-search-path", folder / "tasks", "--batch-size", "64"]
    arguments += ["--max-fevals", str(evaluations), *options]
    found = json.loads(in_their_environment(programs, folder, arguments)[-1])
    count = found["evaluations"]
    return {
        "evaluations_per_minute": 60 * count / found["seconds"],
        "cpu_s": found["cpu_s"] / count,
        "forward_s": found["forward_s"] / count,
        "worker_s": found["worker_s"] / count,
        "startup_s": found["startup_s"],
        "best": found["best"],
    }


def run_ours(folder: Path, evaluations: int, settings: list[str]) -> dict[str, float]:
    found = search(folder / "ours.yaml", [f"budget.evaluations={evaluations}", *settings])
    cpu = sum(found[key] for key in found if key.startswith("cpu_"))
    return {
        "evaluations_per_minute": 60 * found["evaluations"] / found["search_s"],
        "model_s": found["model_s"] / found["evaluations"],
        "build_s": found["build_s"] / found["evaluations"],
        "cpu_s": cpu / found["evaluations"],
        "startup_s": found["startup_s"],
        "best": found["best"],
    }


def same_scores(programs: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Each founder's accuracy, by lm-eval and by ours."""
    from evo.config.loader import load_config
    from evo.evolution import Evolution

    paths = [folder / name for name in FOUNDERS]
    lines = in_their_environment(programs, folder, ["-c", LM_EVAL, folder / "tasks", *paths])
    theirs = dict(zip(FOUNDERS, map(json.loads, lines[-len(paths) :]), strict=True))
    settings = ["pool.kind=local", f"budget.evaluations={len(FOUNDERS)}"]
    with Evolution(load_config(folder / "ours.yaml", settings), folder / "founders") as run:
        for _ in run:
            pass
        rows = run.lineage.individuals.select(["id", "description"]).to_pylist()
        scored = {r["individual"]: r["score"] for r in run.lineage.evaluations.to_pylist()}
    return {
        row["description"]: {"lm_eval": theirs[row["description"]], "ours": scored[row["id"]]}
        for row in rows
    }


def headline(data: dict[str, Any]) -> str:
    """Of one worker, the slower of local and Ray; in wall and in processor time."""
    found = data["found"]
    ours = [found[name] for name in list(OURS)[:2]]
    rate = min(row["evaluations_per_minute"]["median"] for row in ours)
    cpu = max(row["cpu_s"]["median"] for row in ours)
    times = "; ".join(
        f"{found[name]['cpu_s']['median'] / cpu:.0f}x less processor time than {name}, "
        f"{rate / found[name]['evaluations_per_minute']['median']:.0f}x its rate of "
        f"{found[name]['evaluations_per_minute']['median']:.0f}"
        for name in THEIRS
    )
    return (
        f"one worker, {data['parameters'] / 1e6:.2f}M parameters, {ITEMS} items: {rate:.0f} evaluations "
        f"a minute; {times}{' (' + data['note'] + ')' if data.get('note') else ''}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--evaluations", type=int, default=200, help="of ours, a run")
    parser.add_argument("--theirs", type=int, default=14, help="of mergekit-evolve, a run")
    options = parser.parse_args()
    programs = mergekit_env.mergekit("evolve")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        parameters = write_models(folder, FOUNDERS, hidden=128, layers=4, vocabulary=VOCABULARY)
        write_items(folder)
        write_configs(folder)
        scores = same_scores(programs, folder)
        print(f"accuracy of the founders: {scores}", flush=True)
        candidates = {
            name: partial(run_ours, folder, options.evaluations, settings)
            for name, settings in OURS.items()
        } | {
            name: partial(run_theirs, programs, folder, options.theirs, settings)
            for name, settings in THEIRS.items()
        }
        their_versions = mergekit_env.versions(
            programs, "mergekit", "lm_eval", "torch", "transformers", "ray", "cma"
        )

        def keep(rows: Rows) -> None:
            data = {
                "parameters": parameters,
                "items": ITEMS,
                "evaluations": {"ours": options.evaluations, "mergekit-evolve": options.theirs},
                "their_versions": their_versions,
                "accuracy_of_founders": scores,
                "found": {name: summary(found) for name, found in rows.items()},
                "runs": rows,
            }
            print(headline(data), save("against_mergekit_evolve", data, headline(data)))

        alternate(candidates, options.repeats, keep)


if __name__ == "__main__":
    main()
