"""What an evaluation costs as population, founders, parameters and examples grow: four curves.

python benchmarks/scaling.py [--repeats 2] [--only population founders ...]

One of the four grows, the others stay as in START. Models are random Llamas made on the spot, one local
host with one thread, recipe_search. What is fitted and plotted are processor seconds an evaluation (search,
host and scorer together), which suffer less than wall seconds from what else the machine does; both are in
the results. Exponents are of y = a·xᵇ over all points, and between the last two, where fixed costs matter
least: 1 is linear, 0 is no growth. All points of all curves take turns.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import torch
import transformers
from plot import Panel, svg
from results import save
from runner import Rows, alternate, exponent, summary
from tiny_models import write_models, write_questions

import evo
from evo.evolution import Evolution

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "scaling.svg"
VOCABULARY = 256
START = {"population": 8, "founders": 4, "hidden": 64, "examples": 50}
CURVES = {
    "population": ("population", (4, 16, 64, 256)),
    "founders": ("founders", (2, 4, 8, 16, 32)),
    "parameters": ("hidden", (32, 64, 128, 256)),
    "examples": ("examples", (25, 50, 100, 200)),
}
SMALL = {
    "hidden": 16,
    "examples": 10,
}  # for populations: it is the search that they could slow down
MEANT = {
    "population": "the search itself costs the same for each individual however many there are",
    "founders": "a child is one sum over its founders, beside a forward pass that does not grow",
    "parameters": "forward pass and sums grow with the weights",
    "examples": "the forward pass grows with the examples, building a child does not",
}


def sizes_of(curve: str, value: int) -> dict[str, int]:
    """What is made for one point."""
    return {**START, **(SMALL if curve == "population" else {}), CURVES[curve][0]: value}


def point(folder: Path, sizes: dict[str, int]) -> dict[str, float]:
    """One search; models and questions are made where they are not there yet."""
    names = [f"f{i}" for i in range(sizes["founders"])]
    zoo = folder / f"{sizes['hidden']}-{sizes['founders']}"
    if not (zoo / "parameters").exists():
        parameters = write_models(
            zoo, names, hidden=sizes["hidden"], layers=4, vocabulary=VOCABULARY
        )
        (zoo / "parameters").write_text(str(parameters))
    questions = folder / f"{sizes['examples']}.jsonl"
    if not questions.exists():
        write_questions(questions, sizes["examples"], VOCABULARY)
    # Founders, and two rounds of the population at least: the algorithm's own step is in it. A host's
    # measuring of how many run together (a second) is once for a run, and shared by many.
    count = sizes["founders"] + max(2 * sizes["population"], 240)
    config = evo.RunConfig(
        base=zoo / "base",
        founders={name: zoo / name for name in names},
        tasks=[evo.TaskConfig(name="questions", metric="accuracy", files={"dev": questions})],
        algorithm={"name": "recipe_search", "population": sizes["population"]},
        budget=evo.BudgetConfig(evaluations=count),
        pool={"kind": "local"},
    )
    with (
        tempfile.TemporaryDirectory(dir=folder) as run_dir,
        Evolution(config, Path(run_dir) / "run") as run,
    ):
        began = process_time()
        for _ in run:
            pass
        cpu, found = process_time() - began, run._run.search
    return {
        "parameters": float((zoo / "parameters").read_text()),
        "cpu_s": cpu / found.evaluations,
        "wall_s": found.seconds / found.evaluations,
        "build_s": found.busy.build_s / found.evaluations,
        "model_s": found.busy.model_s / found.evaluations,
        "evaluations": found.evaluations,
    }


def curve_of(curve: str, rows: dict[int, list[dict[str, float]]]) -> dict[str, Any]:
    """Points, exponents, and what they say."""
    points = {value: summary(found) for value, found in rows.items()}
    x = [p["parameters"]["median"] if curve == "parameters" else v for v, p in points.items()]
    y = [p["cpu_s"]["median"] for p in points.values()]
    whole, end = exponent(x, y), exponent(x[-2:], y[-2:])
    said = (
        f"{curve} from {x[0]:,.0f} to {x[-1]:,.0f}: {1000 * y[0]:.3g} to {1000 * y[-1]:.3g} ms of "
        f"processor time an evaluation, exponent {whole:.2f} ({end:.2f} at the end): {MEANT[curve]}."
    )
    return {"x": x, "exponent": whole, "exponent_at_end": end, "said": said, "points": points}


def picture(curves: dict[str, dict[str, Any]]) -> str:
    """One panel a curve."""
    panels = []
    for name, found in curves.items():
        spread = [p["cpu_s"] for p in found["points"].values()]
        low, middle, high = ([1000 * s[k] for s in spread] for k in ("low", "median", "high"))
        note = f"exponent {found['exponent']:.2f}, {found['exponent_at_end']:.2f} at the end"
        panels.append(Panel(name, note, name, "ms an evaluation", found["x"], middle, low, high))
    return svg(panels)


def headline(data: dict[str, Any]) -> str:
    found = data["curves"]
    told = ", ".join(
        f"{n} {c['exponent']:.2f} ({c['exponent_at_end']:.2f})" for n, c in found.items()
    )
    return f"exponents of processor time an evaluation, overall (and at the large end): {told}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(CURVES), default=list(CURVES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as text:
        candidates = {
            f"{curve} {value}": partial(point, Path(text), sizes_of(curve, value))
            for curve in options.only
            for value in CURVES[curve][1]
        }
        alternate(candidates, options.repeats, partial(keep, options.only))


def keep(only: list[str], rows: Rows) -> None:
    """Fit, print, and where all curves were measured write results and picture."""
    curves = {
        curve: curve_of(curve, {value: rows[f"{curve} {value}"] for value in CURVES[curve][1]})
        for curve in only
    }
    for found in curves.values():
        print(found["said"])
    if set(only) == set(CURVES):
        PICTURE.write_text(picture(curves))
        data = {"start": START, "curves": curves, "runs": rows}
        print(PICTURE, save("scaling", data, headline(data)))


if __name__ == "__main__":
    main()
