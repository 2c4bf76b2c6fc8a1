"""Rebuild: the weights of any individual that ever lived, from its recipe and the founders alone."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from cluster.founders.checkpoints import FounderFiles, FounderSet
from cluster.host.builder import Builder
from evo.config.schema import RunConfig
from evo.errors import EvoError
from evo.lineage.read.lineage import Lineage
from evo.lineage.read.opening import open_lineage
from evo.run.setup import reopen_founders
from evo.run_dir import RunDir
from evo.versions import versions
from operators.build.paths import LayerPath
from operators.recipe import Founder, Recipe, walk
from operators.tensors.low_rank import Adapted
from operators.tensors.threads import torch_threads
from operators.tensors.weights import Weights


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """An individual's weights, as they were when it lived.

    Attributes:
        weights: in host memory, in the run's dtype. Of a ``Route`` the laid tensors: those of its steps
            under the names of one longer model; the scales are in the recipe. Of factors that were applied
            (``engine.adapters: apply``) the base with them added, of which ``digest`` is not.
        digest: of what was built now; see :meth:`cluster.host.builder.Builder.digest`.
        recorded: the digest in the lineage; None where none was recorded, as in runs of schema 1.
        same: whether the two are equal; None where none was recorded.
    """

    id: str
    recipe: Recipe
    weights: Weights
    digest: str
    recorded: str | None
    same: bool | None


def rebuild(
    run: Path | str | Lineage,
    individual: str,
    *,
    founders: Mapping[str, Path] | None = None,
    check: bool = True,
) -> Rebuilt:
    """Build an individual again, by id, prefix of one, or ``best``; also one that failed.

    The founders' digests are compared with those that the run began with, and then the weights' with the
    one recorded when it was evaluated.

    Args:
        founders: where founders (or ``base``) are now, by name; the others are where the config has them.
        check: refuse weights that are not those recorded; else ``same`` tells.

    Raises:
        EvoError: no such run or individual; a founder is gone or another one; or the weights differ.
        CheckpointError: a founder can't be read.
    """
    lineage = run if isinstance(run, Lineage) else open_lineage(Path(run))
    found = lineage.find(individual)
    recipe = lineage.recipe(found)
    config = moved(RunDir(lineage.run_dir).read_config(check_files=False), founders or {})
    files = founders_of([recipe], config, lineage.run_dir)
    engine = config.engine
    with torch_threads(engine.threads):
        builder = Builder(files.base, files.founders, dtype=engine.dtype, adapters=engine.adapters)
        built = builder.build(recipe)
        digest = builder.digest(built)
    recorded = _recorded(lineage, found, digest)
    if check and recorded not in (None, digest):
        raise EvoError(
            f"{lineage.run_dir}: individual {found[:12]} is not what it was: its weights were "
            f"{str(recorded)[:12]}.. (SHA-256) when it was evaluated, and are {digest[:12]}.. now. Its recipe "
            f"and its founders are the same. {causes(lineage.run_dir, config)} rebuild(..., check=False) "
            "gives the weights all the same"
        )
    if isinstance(built, Adapted):
        with torch_threads(engine.threads):
            weights = builder.whole(recipe)
    else:
        weights = built.weights if isinstance(built, LayerPath) else built
    same = None if recorded is None else recorded == digest
    return Rebuilt(found, recipe, weights, digest, recorded, same)


def moved(config: RunConfig, places: Mapping[str, Path]) -> RunConfig:
    """``config`` with founders, or the base, in other places.

    Raises:
        EvoError: the run has no founder of that name.
    """
    known = {"base", *config.founders}
    if unknown := sorted(places.keys() - known):
        raise EvoError(
            f"founders: the run has no {unknown[0]!r}; there are {', '.join(sorted(known))}"
        )
    paths = {name: Path(path) for name, path in places.items()}
    models = {name: paths.get(name, path) for name, path in config.founders.items()}
    base = paths.get("base", config.base)
    return config.model_copy(update={"base": base, "founders": models})


def founders_of(recipes: Collection[Recipe], config: RunConfig, run_dir: Path) -> FounderSet:
    """The base, and the founders that ``recipes`` are made of: those that the run began with.

    Raises:
        EvoError: one of them is gone, or holds other tensors now; the message names it.
        CheckpointError: one can't be read.
    """
    used = {part.name for r in recipes for part in walk(r) if isinstance(part, Founder)}
    found = reopen_founders(config, RunDir(run_dir), used)
    manifest = RunDir(run_dir).read_manifest()
    if found.base.founder.digest != manifest.scores.base:
        raise _changed("base", found.base, run_dir)
    for entry in found.founders:
        if entry.founder.digest != manifest.search.founders.get(entry.founder.name):
            raise _changed(entry.founder.name, entry, run_dir)
    return found


def _changed(name: str, entry: FounderFiles, run_dir: Path) -> EvoError:
    return EvoError(
        f"{entry.path}: its tensors are not those that founder {name!r} had when the run in {run_dir} "
        "began (digests differ), so what descends from it can't be rebuilt. Restore the files, or say "
        "where they are: rebuild(..., founders={name: path})"
    )


def causes(run_dir: Path, config: RunConfig) -> str:
    """Why the bits may be others here than when the run was made, as far as that is on record."""
    then, now = RunDir(run_dir).read_manifest().versions, versions()
    known = [
        f"{name} was {then.get(name, 'absent')} and is {now[name]}"
        for name in ("torch", "numpy", "evo-models")
        if then.get(name) != now[name]
    ]
    if config.engine.device != "cpu":
        known.append(f"the run's device was {config.engine.device}")
    if known:
        return f"What may be the cause: {'; '.join(known)}."
    return (
        "Torch, numpy and this package have the versions that they had, so it is the kind of processor, "
        "or the lineage was changed after it was written."
    )


def _recorded(lineage: Lineage, individual: str, digest: str) -> str | None:
    """The digest on record; where there are several, one that is not ``digest``."""
    rows = lineage.table("evaluations", ["weights"], pc.field("individual") == individual)
    found = [text for text in rows.column("weights").to_pylist() if text is not None]
    return next((text for text in found if text != digest), found[0] if found else None)
