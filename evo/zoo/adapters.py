"""LoRA adapters of the zoo's base, trained with peft: experts of different ranks, scalings and modules.

A low rank is enough for one skill, and cheaper to train than a whole expert. An adapter made from an expert
by SVD scores less than a trained one of the same rank: at rank 4 on dev, swap .81 against .99 and rev .91
against 1.00.

Importing this module loads neither torch nor peft; the worker processes do.
"""

import hashlib
import importlib.util
import json
import multiprocessing
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from evo.errors import EvoError
from evo.zoo.plan import Course, Lesson, zoo_plan

Figures = Mapping[str, Mapping[str, float]]

FOLDER: Final = "adapters"
_MANIFEST: Final = "adapters.json"
_MIXED: Final = "trio"

_ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
_MLP: Final = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class AdapterPlan:
    """One adapter: its training, modules and rank. ``stabilised`` is rsLoRA's scaling."""

    course: Course
    modules: tuple[str, ...]
    rank: int
    alpha: int
    stabilised: bool = False


def _plan(
    skill: str,
    rank: int,
    modules: tuple[str, ...],
    *,
    rate: float,
    stabilised: bool = False,
    steps: int,
) -> AdapterPlan:
    course = Course(
        name=skill,
        lessons=(Lesson(skill),),
        steps=steps,
        batch=64,
        peak_rate=rate,
        final_rate=0.0,
        warmup=20,
        replay=True,
    )
    return AdapterPlan(course, modules, rank, 2 * rank, stabilised)


def adapter_plans(*, steps: int = 300) -> tuple[AdapterPlan, ...]:
    """The demo's six adapters. With few steps they learn nothing, which is enough for most tests."""
    return (
        _plan("rev", 8, (*_ATTENTION, *_MLP), rate=3e-3, steps=steps),
        _plan("swap", 16, _MLP, rate=3e-3, stabilised=True, steps=steps),
        _plan("pmax", 4, (*_ATTENTION, *_MLP), rate=5e-3, steps=steps),
        _plan("sort", 8, _ATTENTION, rate=3e-3, stabilised=True, steps=steps),
        _plan("desc", 4, ("q_proj", "v_proj"), rate=5e-3, steps=steps),
        _plan("pmin", 16, _MLP, rate=3e-3, stabilised=True, steps=steps),
    )


def train_adapters(
    zoo: Path,
    *,
    plans: tuple[AdapterPlan, ...] | None = None,
    seed: int = 0,
    workers: int = 2,
    progress: Callable[[str, float], None] | None = None,
) -> Figures:
    """Train the adapters into ``zoo/adapters/<skill>``, unless they are there already.

    Returns:
        Exact match (0 to 1) on dev by adapter, then by task: its own skill, and trio.

    Raises:
        EvoError: there is no zoo, its adapters are of another seed, or peft is not installed.
    """
    if not (zoo / "zoo.json").is_file():
        raise EvoError(f"{zoo}: no zoo here; first run: evo zoo build {zoo}")
    out = zoo / FOLDER
    if out.exists():
        return _existing(out, seed)
    if importlib.util.find_spec("peft") is None:
        raise EvoError("training adapters needs peft: pip install 'evo-models[lora]'")
    partial = zoo / f".{FOLDER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    chosen = plans or adapter_plans()
    figures: dict[str, dict[str, float]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs = {pool.submit(_train, zoo, plan, partial, seed): plan for plan in chosen}
        for job in as_completed(jobs):
            figures[jobs[job].course.name] = job.result()
            if progress is not None:
                progress("training adapters", len(figures) / len(chosen))
    figures = {plan.course.name: figures[plan.course.name] for plan in chosen}
    manifest = json.dumps({"seed": seed, "figures": figures}, indent=2)
    (partial / _MANIFEST).write_text(manifest + "\n", encoding="utf-8")
    partial.rename(out)
    return figures


def _existing(out: Path, seed: int) -> Figures:
    advice = "Remove the folder to train them again."
    try:
        manifest = json.loads((out / _MANIFEST).read_text(encoding="utf-8"))
        figures: Figures = manifest["figures"]
        found = manifest["seed"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvoError(f"{out}: holds no complete set of adapters ({error!r}). {advice}") from error
    if found != seed:
        raise EvoError(f"{out}: holds the adapters of seed {found}, not {seed}. {advice}")
    return figures


def _train(zoo: Path, plan: AdapterPlan, folder: Path, seed: int) -> dict[str, float]:
    """Train one adapter and save it; runs in a process of its own."""
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    from evo.zoo.training import encode, exact_match, train

    torch.set_num_threads(plan.course.threads)
    torch.use_deterministic_algorithms(True)
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    name = plan.course.name
    digest = hashlib.sha256(f"zoo adapter {seed}:{name}".encode()).digest()
    drawn = int.from_bytes(digest[:6])
    torch.manual_seed(drawn)
    base = transformers.AutoModelForCausalLM.from_pretrained(zoo / "base", dtype=torch.float32)
    config = LoraConfig(
        r=plan.rank,
        lora_alpha=plan.alpha,
        use_rslora=plan.stabilised,
        target_modules=list(plan.modules),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, config)
    train(model, plan.course, zoo_plan().base.lessons, on_step=lambda: None, seed=drawn)
    figures = {}
    for task in (name, _MIXED):
        lines = (zoo / "tasks" / f"{task}.dev.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        figures[task] = exact_match(model, encode([(r["prompt"], r["answer"]) for r in rows]))
    # The embeddings are the base's. With the default, peft asks the hub about them.
    model.save_pretrained(str(folder / name), save_embedding_layers=False)
    return figures
