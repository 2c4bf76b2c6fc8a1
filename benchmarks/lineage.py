"""What reading a long lineage costs: seconds and peak memory of each question, in fresh processes.

python benchmarks/lineage.py [--folder FOLDER] [--shapes 1000x1000 10000x100 31250x32] [--repeats 5]

A lineage of generations × individuals is made by the project's own commit function: recipes of real
form (ids are those of their recipes), parents by tournament, two to four of them, evaluations on one task. Each
question is asked in a process of its own, after its imports; medians over repeats. Files are in the
operating system's cache; "disk" is the same where it was told to forget them first.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from results import save

from evo.lineage.schema import SCHEMAS
from evo.lineage.storage.commits import commit

QUESTIONS = {
    "import": "None",
    "ancestors": "lineage.ancestors(late)",
    "ancestors with recipes": 'lineage.ancestors(late, evo.lineage.SCHEMAS["individuals"].names)',
    "best_so_far": "lineage.best_so_far()",
    "descendants": "lineage.descendants(early)",
    "find": "lineage.find(late[:12])",
    "best": "lineage.best()",
    "tree": "lineage.tree(late)",
    "recipe": "lineage.recipe(late)",
    "everything": "[getattr(lineage, name) for name in evo.lineage.SCHEMAS]",
}
ASK = """
import json, resource, sys, time
began = time.perf_counter()
import evo, evo.lineage, pandas, pyarrow.compute
imported = time.perf_counter() - began
folder, late, early = sys.argv[1:]
def peak():  # ru_maxrss would be the parent's where that was larger
    with open("/proc/self/status") as file:
        return int(next(s for s in file if s.startswith("VmHWM")).split()[1]) / 1024
before = peak()
began, busy = time.perf_counter(), time.process_time()
lineage = evo.lineage.open(folder)
found = {question}
seconds, cpu = time.perf_counter() - began, time.process_time() - busy
print(json.dumps(dict(import_seconds=imported, seconds=seconds, cpu_seconds=cpu, peak_mib=peak(), import_mib=before,
    rows=getattr(found, "num_rows", None))))
"""
FOUNDERS = [(f"founder-{i}", hashlib.sha256(bytes([i])).hexdigest()) for i in range(5)]
EXAMPLES = 4


def headline(data: dict[str, Any]) -> str:
    shape, found = next(iter(data["shapes"].items()))
    asked = found["questions"]
    return (
        f"{shape} individuals ({found['mib']:.0f} MiB): ancestors {asked['ancestors']['seconds']:.1f} s, "
        f"find {asked['find']['seconds']:.1f} s, best {asked['best']['seconds']:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the lineages are made, and kept")
    parser.add_argument("--shapes", nargs="+", default=["1000x1000", "10000x100", "31250x32"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--questions", nargs="+", default=list(QUESTIONS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        table = {}
        for shape in options.shapes:
            generations, size = map(int, shape.split("x"))
            run = root / shape
            if not (run / "ends.json").exists():
                make(run, generations, size)
            table[shape] = measure(run, options.questions, options.repeats)
            for question, row in table[shape]["questions"].items():
                print(shape, question, json.dumps({k: v for k, v in row.items() if k != "all"}))
    if options.questions == list(QUESTIONS):
        data = {"repeats": options.repeats, "shapes": table}
        print(save("lineage", data, headline(data)))


def make(run: Path, generations: int, size: int) -> None:
    """Write a lineage of that many generations, of ``size`` new individuals each."""
    rng = np.random.default_rng(0)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    ids: list[str] = []
    fitness = np.empty(0)
    first = ""
    for generation in range(generations):
        made = [recipe(rng) for _ in range(size)]
        new = [hashlib.sha256(text.encode()).hexdigest() for text in made]
        parents: list[list[str]] = [[] for _ in new]
        operators = ["founder"] * size
        if generation:
            # Each parent is the best of three of the last generation, as in a tournament.
            counts = rng.choice([1, 2, 4], size, p=[0.3, 0.5, 0.2])
            drawn = rng.integers(len(ids), size=(counts.sum(), 3))
            best = drawn[np.arange(len(drawn)), fitness[drawn].argmax(axis=1)]
            split = np.split(best, np.cumsum(counts)[:-1])
            parents = [[ids[i] for i in dict.fromkeys(p.tolist())] for p in split]
            names = {1: "mutation:weights", 2: "crossover:average", 4: "succession"}
            operators = [names[int(c)] for c in counts]
        score = np.clip(rng.normal(0.5 + 0.4 * generation / generations, 0.05, size), 0, 1)
        commit(
            run / "lineage",
            f"{generation:06d}",
            tables(rng, generation, new, operators, parents, made, score, start),
        )
        ids, fitness = new, score
        first = first or new[0]
    ends = {"late": ids[int(fitness.argmax())], "early": first}
    (run / "ends.json").write_text(json.dumps(ends))


def recipe(rng: np.random.Generator) -> str:
    """A weighted sum of founders and noise, as canonical JSON."""
    terms: list[Any] = [
        [{"digest": digest, "founder": name}, float(rng.normal())] for name, digest in FOUNDERS
    ]
    terms.append([{"noise": int(rng.integers(2**62)), "rank": 0, "rate": 1.0}, 0.001])
    return json.dumps({"linear": terms}, separators=(",", ":"), sort_keys=True)


def tables(
    rng: np.random.Generator,
    generation: int,
    ids: list[str],
    operators: list[str],
    parents: list[list[str]],
    recipes: list[str],
    score: np.ndarray,
    start: datetime,
) -> dict[str, pa.Table]:
    """One generation's rows of every table."""
    size = len(ids)
    seconds = rng.gamma(4.0, 0.25, size)
    number = np.full(size, generation, np.int32)
    values = {
        "individuals": {
            "id": ids,
            "generation": number,
            "operator": operators,
            "parents": parents,
            "recipe": recipes,
            "description": [" + ".join(f"{w:.3g}·f" for w in rng.normal(size=5)) for _ in ids],
            "seed": rng.integers(2**62, size=size),
        },
        "evaluations": {
            "individual": ids,
            "generation": number,
            "task": ["task"] * size,
            "split": ["dev"] * size,
            "score": score,
            "standard_error": np.full(size, 0.01),
            "fitness": score,
            "examples": np.full(size, EXAMPLES, np.int32),
            "seconds": seconds,
            "build_seconds": seconds / 10,
            "model_seconds": seconds / 2,
            "tokens": rng.integers(1000, 2000, size),
            "weights": [rng.bytes(32).hex() for _ in ids],
            "at_seconds": generation * 1000 + np.cumsum(seconds),
            "host": [f"host-{h}" for h in rng.integers(16, size=size)],
            "attempt": np.ones(size, np.int32),
            "status": ["ok"] * size,
            "error": pa.nulls(size, pa.string()),
        },
        "items": {
            "individual": np.repeat(ids, EXAMPLES),
            "task": ["task"] * (size * EXAMPLES),
            "split": ["dev"] * (size * EXAMPLES),
            "example": np.tile(np.arange(EXAMPLES, dtype=np.int32), size),
            "value": rng.integers(2, size=size * EXAMPLES).astype(float),
            "answer": [f"answer {a}" for a in rng.integers(100, size=size * EXAMPLES)],
        },
        "population": {
            "generation": number,
            "rank": np.arange(size, dtype=np.int32),
            "individual": [ids[i] for i in np.argsort(-score)],
            "fitness": np.sort(score)[::-1],
        },
        "events": {
            "time": [start + timedelta(seconds=generation)],
            "generation": pa.array([generation], pa.int32()),
            "kind": ["host joined"],
            "detail": ["host-1"],
        },
    }
    return {name: pa.table(columns, schema=SCHEMAS[name]) for name, columns in values.items()}


def measure(run: Path, questions: list[str], repeats: int) -> dict[str, Any]:
    """Medians of each question's seconds and peak memory."""
    ends = json.loads((run / "ends.json").read_text())
    files = [p for p in (run / "lineage").rglob("*") if p.is_file()]
    found = {}
    for question in questions:
        rows = [ask(run, ends, question) for _ in range(repeats)]
        row = {k: statistics.median(r[k] for r in rows) for k in rows[0] if rows[0][k] is not None}
        forget(files)
        row["disk_seconds"] = ask(run, ends, question)["seconds"]
        found[question] = {**row, "all": [r["seconds"] for r in rows]}
    size = sum(p.stat().st_size for p in files) / 2**20
    return {"files": len(files), "mib": size, "questions": found}


def ask(run: Path, ends: dict[str, str], question: str) -> dict[str, Any]:
    """Ask one question in a fresh process."""
    code = ASK.replace("{question}", QUESTIONS[question])
    command = [sys.executable, "-c", code, str(run), ends["late"], ends["early"]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def forget(files: list[Path]) -> None:
    """Ask the operating system to drop these files from its cache."""
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
