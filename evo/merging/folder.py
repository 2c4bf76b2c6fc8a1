"""From a merge's YAML to a checkpoint folder that plain transformers loads."""

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.founders.checkpoints import CheckpointError
from evo.errors import EvoError
from evo.export.checkpoint import SHARD_BYTES
from evo.files import whole_folder
from evo.merging.checkpoint import ModelFiles, open_model, stacked_config
from evo.merging.plan import MergePlan, plan
from evo.merging.recipe_file import MergeFile, SliceSource, load
from evo.merging.stream import write
from evo.vocabulary.align import align
from evo.vocabulary.files import check_agreement

RECIPE_FILE = (
    "mergekit_config.yml"  # the name under which mergekit leaves it, and tools look for it
)
# Not copied from the donor: weights in any form, and what is written here.
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".index.json")
_WRITTEN = ("README.md", "config.json", RECIPE_FILE, "recipe.json")


@dataclass(frozen=True, slots=True)
class Merged:
    """What was written: files, tensors, bytes; and notes for the user."""

    path: Path
    files: int
    tensors: int
    bytes: int
    notes: tuple[str, ...]


def merge_file(
    recipe_file: Path,
    out: Path,
    shard_bytes: int = SHARD_BYTES,
    threads: int = 1,
    seed: int | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Merged:
    """Merge as a YAML file says and write the model to the folder ``out``.

    Memory is a few tensors for each thread, whatever the size of the models; the methods that see
    whole models (``pcb``) are the exception. Written to a temporary folder beside ``out`` and
    renamed, so a half-written model never has the name. ``seed`` overrides the file's ``random_seed``.
    ``progress`` gets the bytes of each tensor that is done, and of all.

    Raises:
        EvoError: something in the file is wrong, models don't fit together, or ``out`` exists.
        CheckpointError: a model can't be read.
    """
    recipe = load(recipe_file)
    if seed is not None:
        recipe = replace(recipe, seed=seed)
    with whole_folder(out) as folder, tempfile.TemporaryDirectory(dir=folder) as aside:
        aligned, more = _aligned(recipe, Path(aside) / "aligned")
        models = {s.path: open_model(s.path) for part in aligned.slices for s in part.sources}
        planned = plan(aligned, models)
        files = write(
            planned,
            recipe.method,
            recipe.seed,
            models,
            folder,
            shard_bytes=shard_bytes,
            threads=threads,
            progress=progress,
        )
        donor = aligned.donor
        for file in sorted(donor.iterdir()) if donor.is_dir() else ():
            weights = file.name.endswith(_WEIGHTS)
            if file.is_file() and not weights and file.name not in _WRITTEN:
                shutil.copyfile(file, folder / file.name)
        _write_config(aligned, planned, models, folder)
        (folder / RECIPE_FILE).write_text(recipe.text, encoding="utf-8")
        (folder / "README.md").write_text(_card(recipe, out.name), encoding="utf-8")
    size = sum(f.size for f in files)
    return Merged(out, len(files), len(planned.tensors), size, (*recipe.notes, *more))


def parse_size(text: str) -> int:
    """Bytes of ``5GB``, ``200MB``, ``1GiB`` or ``4096``.

    Raises:
        EvoError: it is none of these, or nothing.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    size = 0
    if found:
        number, unit, binary = found.groups()
        power = " KMGT".index(unit.upper() or " ")
        size = int(float(number) * (1024 if binary else 1000) ** power)
    if size <= 0:
        raise EvoError(f"--shard-size {text}: expected a size such as 5GB or 200MB")
    return size


def _aligned(recipe: MergeFile, folder: Path) -> tuple[MergeFile, tuple[str, ...]]:
    """The recipe over models of one vocabulary: those given, or where asked, aligned copies."""
    paths = dict.fromkeys(s.path for part in recipe.slices for s in part.sources)
    names = {f"model_{i}": path for i, path in enumerate(paths)}
    if recipe.tokenizer is None:
        check_agreement(recipe.donor, names, key="tokenizer_source")
        return recipe, ()
    mode: Any = recipe.tokenizer
    if isinstance(mode, Path) and mode.resolve() == recipe.donor.resolve():
        mode = "base"
    found = align(names, recipe.donor, mode, folder)
    now = {path: found.models[name] for name, path in names.items()}

    def at(source: SliceSource) -> SliceSource:
        return replace(source, path=now[source.path])

    slices = tuple(
        replace(
            part,
            inputs=tuple(map(at, part.inputs)),
            base=None if part.base is None else at(part.base),
        )
        for part in recipe.slices
    )
    return replace(recipe, slices=slices, donor=found.base), found.notes


def _write_config(
    recipe: MergeFile, planned: MergePlan, models: dict[Path, ModelFiles], folder: Path
) -> None:
    path = recipe.donor / "config.json"
    if not path.is_file():
        return
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    if planned.origins:
        origins = tuple((models[model].config, layer) for model, layer in planned.origins)
        try:
            config = stacked_config(config, origins)
        except (ValueError, LookupError) as error:
            raise EvoError(
                f"{path}: the number of layers can't be set ({error}); slices need it"
            ) from error
    if recipe.dtype:
        key = "torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"
        config[key] = recipe.dtype
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _card(recipe: MergeFile, name: str) -> str:
    sources = [s for part in recipe.slices for s in part.sources]
    models = dict.fromkeys(s.node.text("model") for s in sources)
    return "\n".join(
        [
            "---",
            "tags: [merge, mergekit, evo-models]",
            "---",
            f"# {name}",
            "",
            f"A merge by `{recipe.method.name}` ({recipe.method.source}) of:",
            "",
            *(f"- {model}" for model in models),
            "",
            f"Made by evo-models (`evo merge`, seed {recipe.seed}), computed in float32, from:",
            "",
            "```yaml",
            recipe.text.rstrip(),
            "```",
            "",
        ]
    )
