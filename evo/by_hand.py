"""The loop by hand: open founders, make an algorithm and build the models that it asks for, without a run."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from cluster.founders.adapters import is_adapter
from cluster.founders.checkpoints import FounderSet, load_founders, open_checkpoint
from cluster.host.builder import Builder
from evo import algorithms
from evo.algorithms import Algorithm, AlgorithmSettings, Start
from evo.errors import EvoError
from operators.recipe import Recipe, Route


def open_founders(founders: Mapping[str, Path | str], *, base: Path | str) -> FounderSet:
    """The founders by name and their base, opened and checked; each checkpoint is read once for its digest.

    Args:
        founders: folders with safetensors, ``.safetensors`` files, or LoRA adapters of the base.
        base: the checkpoint that the founders were tuned from.

    Raises:
        CheckpointError, WeightsMismatchError: a checkpoint can't be read, or does not fit the base.
    """
    return load_founders(Path(base), {name: Path(path) for name, path in founders.items()})


def start_of(
    founders: FounderSet,
    *,
    seed: int = 0,
    evaluations: int | None = None,
    influence: Mapping[str, tuple[float, ...]] | None = None,
) -> Start:
    """What an algorithm over ``founders`` starts from; see :class:`evo.algorithms.Start`."""
    return Start(
        tuple(f.founder for f in founders.founders),
        founders.base.founder,
        seed,
        founders.layers,
        tensors=open_checkpoint(founders.base.path).layout.names,
        adapters=all(is_adapter(f.path) for f in founders.founders),
        evaluations=evaluations,
        influence=influence or {},
    )


def make(
    algorithm: str | Mapping[str, Any] | AlgorithmSettings,
    founders: FounderSet,
    *,
    seed: int = 0,
    evaluations: int | None = None,
) -> Algorithm:
    """An algorithm over ``founders``, before its first generation: ask it, evaluate, tell it.

    Args:
        algorithm: a name of ALGORITHMS, "package.module:Class", or settings with such a name.
        founders: from :func:`open_founders`.
        seed: the same seed and evaluations give the same candidates.
        evaluations: the budget, which a ``sequence`` divides among its stages.

    Raises:
        EvoError: an unknown name or setting, or the algorithm refuses the founders.
    """
    plain = dict(algorithm) if isinstance(algorithm, Mapping) else algorithm
    try:
        settings = algorithms.read_settings(plain)
    except ValidationError as error:
        raise EvoError(_explain(error)) from error
    return algorithms.make(settings, start_of(founders, seed=seed, evaluations=evaluations))


def build(recipe: Recipe, founders: FounderSet, *, dtype: str = "") -> dict[str, Tensor]:
    """The weights of ``recipe``, by tensor name: the same bits that a host of a run builds on CPU.

    ``dtype`` is that of the result ("bfloat16"); by default the base's own. The tensors are yours.

    Raises:
        EvoError: the recipe is a data-flow path, which has no weights of its own.
        CheckpointError: a founder has changed since it was opened.
        MissingFounderError: the recipe names a founder that is not among ``founders``.
    """
    if isinstance(recipe, Route):
        raise EvoError(
            f"individual {recipe.id[:12]} is a data-flow path and has no weights of its own; in a run, "
            "`evo export` writes it as a checkpoint"
        )
    weights = _builder(founders, dtype).whole(recipe)
    return {name: tensor.clone() for name, tensor in weights.tensors.items()}


@lru_cache(maxsize=1)
def _builder(founders: FounderSet, dtype: str) -> Builder:
    return Builder(founders.base, founders.founders, dtype=dtype)


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(map(str, ("algorithm", *problem["loc"])))
        lines.append(f"{key}: {problem['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)
