"""An individual of a run as a checkpoint, an adapter or a merge's YAML, from the run directory alone."""

from pathlib import Path

import evo.lineage
from evo.export.checkpoint import export
from evo.export.lora import export_adapter
from evo.merging.as_yaml import save_yaml
from evo.run.setup import reopen_founders
from evo.run_dir import RunDir
from operators.recipe import Founder, walk


def export_individual(
    run_dir: Path, individual: str, out: Path, *, adapter: bool = False, rank: int = 0
) -> str:
    """Export what the lineage holds, built from the founders that the run's config names.

    Args:
        run_dir: a run's folder.
        individual: an id, a prefix of one, or ``best``.
        out: a folder to write; a file ``.yaml`` or ``.yml`` gets the merge, for ``evo merge`` and mergekit.
        adapter: write a PEFT LoRA adapter of the base instead of a whole model.
        rank: of each matrix of the adapter; 0 keeps the difference exactly.

    Returns:
        A line for people: which individual was written, and where.

    Raises:
        EvoError: no such individual; a founder is missing; or ``out`` exists.
        CheckpointError, WeightsMismatchError: a founder can't be used.
    """
    lineage = evo.lineage.open(run_dir)
    config = RunDir(run_dir).read_config(check_files=False)
    found = lineage.find(individual)
    recipe = lineage.recipe(found)
    used = {part.name for part in walk(recipe) if isinstance(part, Founder)}
    founders = reopen_founders(config, RunDir(run_dir), used)
    written = f"{found[:12]} -> {out}"
    if adapter:
        remote = config.engine.trust_remote_code
        report = export_adapter(recipe, founders, out, rank=rank, trust_remote_code=remote)
        return f"{written}: {report.describe()}"
    if out.suffix in (".yaml", ".yml"):
        save_yaml(recipe, founders, out, dtype=config.engine.dtype)
    else:
        export(recipe, founders, out, dtype=config.engine.dtype)
    return written
