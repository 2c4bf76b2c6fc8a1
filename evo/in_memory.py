"""evolve: torch modules and state dicts that are in memory, with a Python function as the fitness."""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

from safetensors.torch import save
from torch import Tensor, nn

from cluster.founders.checkpoints import digest_of, open_checkpoint
from evo.algorithms import read_settings
from evo.by_hand import build, open_founders
from evo.config.schema import (
    BaselinesConfig,
    BudgetConfig,
    EngineConfig,
    PoolConfig,
    RunConfig,
    TaskConfig,
)
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.files import write_whole
from evo.lineage import Lineage
from evo.report.status import read_status
from evo.run_dir import RunDir
from evo.run_dir.summary import RunSummary
from fitness.functions import name_of
from fitness.splits import DEV, SELECT, TEST, Split
from operators.tensors.weights import weights_of

Model: TypeAlias = nn.Module | Mapping[str, Tensor]
Score: TypeAlias = Real | Sequence[Real] | Tensor
BASE = "base"


@dataclass(frozen=True, slots=True)
class Evolved:
    """What :func:`evolve` found: the winner as a module, and the run that it came from."""

    net: nn.Module
    summary: RunSummary
    run_dir: Path


@dataclass(frozen=True, slots=True)
class _Copy:
    """Gives each host a module of its own."""

    net: nn.Module

    def __call__(self) -> nn.Module:
        return copy.deepcopy(self.net)


@dataclass(frozen=True, slots=True)
class _Fitness:
    """The user's function in the form of a metric: module and split in, scores out."""

    function: Callable[..., Score]
    by_split: bool

    def __call__(self, module: nn.Module, split: str) -> Sequence[Real] | Tensor:
        score = self.function(module, split) if self.by_split else self.function(module)
        if isinstance(score, Tensor):
            return score.reshape(-1)
        return [score] if isinstance(score, Real) else score


def evolve(
    net: nn.Module,
    founders: Mapping[str, Model],
    fitness: Callable[..., Score],
    *,
    run_dir: Path | str,
    base: Model | None = None,
    algorithm: str | Mapping[str, Any] = "recipe_search",
    evaluations: int = 300,
    seed: int = 0,
    threads: int = 1,
) -> Evolved:
    """Evolve models that are in memory, in this process; return the winner and its run.

    The founders are written into ``run_dir/models``, so that the run's lineage holds and any individual can
    be rebuilt from that folder alone. The same call again resumes a run that was interrupted, and returns the
    result of one that has finished.

    Examples:
        >>> found = evo.evolve(net, {"a": sd_a, "b": sd_b}, score, evaluations=200, run_dir="r")
        >>> found.net  # a copy of ``net`` with the winner's weights

    Args:
        net: the module whose weights evolve; it is copied, and stays as it is.
        founders: two models or more by name, as modules or state dicts with the tensors of ``net``.
        fitness: ``fitness(module)``, or ``fitness(module, split)`` with "dev", "select" and "test" for
            ``split``. Gives a number, or a score for each example; higher is better. The module is in eval
            mode and without gradients.
        run_dir: a new folder, or that of the same run.
        base: the ancestor that the founders were tuned from; by default ``net`` as it is.
        algorithm: a name of ALGORITHMS, "package.module:Class", or settings with such a name.
        evaluations: individuals to score on dev, founders included.
        seed: the same seed gives the same result.
        threads: of torch, while a model is built and run.

    Raises:
        EvoError: founders that don't fit ``net``, or a run of other models, settings or another fitness in
            ``run_dir``.
    """
    folder = RunDir(Path(run_dir))
    models = {BASE: net if base is None else base, **founders}
    if BASE in founders:
        raise EvoError(
            f"founders: {BASE!r} is the name of the ancestor; name the founder otherwise"
        )
    task = _task(fitness)
    paths = {name: folder.models / f"{name}.safetensors" for name in models}
    config = RunConfig(
        base=_written(folder, paths[BASE], models[BASE]),
        founders={name: _written(folder, paths[name], model) for name, model in founders.items()},
        tasks=(task,),
        algorithm=read_settings(dict(algorithm) if isinstance(algorithm, Mapping) else algorithm),
        budget=BudgetConfig(evaluations=evaluations),
        engine=EngineConfig(kind="module", build=name_of(_Copy(net)), threads=threads),
        pool=PoolConfig(kind="local"),
        baselines=BaselinesConfig(),
        seed=seed,
    )
    summary = _finished(config, folder)
    if summary is None:
        run = Evolution.resume(folder.path) if folder.has_run else Evolution(config, folder.path)
        with run:
            for _ in run:
                pass
            summary = run.finish()
    winner = Lineage(folder.path).recipe(summary.winner_id)
    opened = open_founders({n: p for n, p in paths.items() if n != BASE}, base=paths[BASE])
    best = copy.deepcopy(net)
    best.load_state_dict(best.state_dict() | build(winner, opened))
    return Evolved(best, summary, folder.path)


def _finished(config: RunConfig, folder: RunDir) -> RunSummary | None:
    """The summary of a run that has finished in ``folder``, which must be a run of ``config``; None if it has not."""
    if not folder.has_run:
        return None
    old = folder.read_config(check_files=False)
    same = {
        "net": old.engine.build == config.engine.build,
        "founders": old.founders.keys() == config.founders.keys(),
        "fitness": old.tasks == config.tasks,
        "algorithm": old.algorithm == config.algorithm,
        "evaluations": old.budget == config.budget,
        "seed": old.seed == config.seed,
        "threads": old.engine.threads == config.engine.threads,
    }
    if differing := [name for name, equal in same.items() if not equal]:
        raise EvoError(
            f"{folder.path}: holds a run with other arguments than these: {', '.join(differing)} differ. "
            "Choose another run_dir, or give the arguments of that run"
        )
    return folder.read_summary() if read_status(folder.path).state == "finished" else None


def _task(fitness: Callable[..., Score]) -> TaskConfig:
    required = [
        p
        for p in inspect.signature(fitness).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(required) not in (1, 2):
        raise EvoError(
            f"fitness: {fitness!r} takes {len(required)} arguments; it must take (module), or "
            "(module, split)"
        )
    by_split = len(required) == 2
    metric = name_of(_Fitness(fitness, by_split))
    data: dict[Split, str] = {DEV: DEV}
    if by_split:
        data |= {SELECT: SELECT, TEST: TEST}
    return TaskConfig(name="fitness", metric=metric, data=data)


def _written(folder: RunDir, path: Path, model: Model) -> Path:
    """Write a model once; where a run holds it already, it must be the same."""
    state = model.state_dict() if isinstance(model, nn.Module) else model
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    if folder.has_run and path.exists():
        if digest_of(open_checkpoint(path)) != digest_of(weights_of(tensors)):
            raise EvoError(
                f"{path}: the run in {folder.path} has other weights for {path.stem!r}. Choose another "
                "run_dir, or give the same models"
            )
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, save(tensors))
    return path
