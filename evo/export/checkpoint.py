"""Individuals as ordinary checkpoints, which plain transformers loads."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import safe_open
from safetensors.torch import save_file

from cluster.founders.checkpoints import (
    INDEX_FILE,
    SINGLE_FILE,
    FounderSet,
    base_weights,
    layout_for,
    map_founders,
    tensors_by_file,
)
from evo.export.path import config_of, path_checkpoint
from evo.files import whole_folder
from operators.build.architectures import architecture_of
from operators.build.materialize import Materializer
from operators.build.paths import PathBuilder
from operators.recipe import Founder, Recipe, Route, describe, walk
from operators.recipe.canonical import to_json

SHARD_BYTES = 5 * 10**9
# Not copied from the base: its weights in any form, and what this export writes itself.
_NOT_COPIED = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".index.json")


def export(recipe: Recipe, founders: FounderSet, out: Path, *, dtype: str = "") -> Path:
    """Build an individual and write it to the folder ``out``: weights, config, tokenizer, model card.

    ``dtype`` is of the weights ("bfloat16"); the base's own by default. Written to a temporary folder
    beside ``out`` and renamed, so a half-written checkpoint never has the name.

    Raises:
        EvoError: ``out`` exists and is not empty.
        CheckpointError: founders changed since the run.
    """
    with whole_folder(out) as folder:
        _write(recipe, founders, folder, dtype)
    return out


def _write(recipe: Recipe, founders: FounderSet, folder: Path, dtype: str) -> None:
    mapped = map_founders(founders.all_files())
    kind = getattr(torch, dtype) if dtype else None
    ancestor = base_weights(founders.base.founder, mapped)
    materializer = Materializer(layout_for(ancestor, kind), mapped)
    base = founders.base.path
    changed: dict[str, Any] = {"dtype": dtype} if dtype else {}
    if isinstance(recipe, Route):
        builder = PathBuilder(materializer, mapped, architecture_of(config_of(base)))
        tensors, path_changes = path_checkpoint(recipe, builder, base)
        changed |= path_changes
    else:
        tensors = dict(materializer.build(recipe).tensors)
        # Integer buffers are nobody's genes: they are the base's.
        for file, names in tensors_by_file(base).items():
            with safe_open(file, framework="pt") as opened:
                tensors |= {n: opened.get_tensor(n) for n in names if n not in tensors}
    _save_tensors(tensors, folder)
    if base.is_dir():
        for file in sorted(base.iterdir()):
            if file.is_file() and not file.name.endswith(_NOT_COPIED):
                shutil.copyfile(file, folder / file.name)
    if changed and (folder / "config.json").is_file():
        _change_config(folder / "config.json", changed)
    write_origin(recipe, founders, folder, tags=("merge",))


def _save_tensors(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    metadata = {"format": "pt"}
    # Planned without storages: tensors that share one, as views of our buffer do, would not be parted.
    shapes = {name: tensor.to("meta") for name, tensor in tensors.items()}
    plan = split_torch_state_dict_into_shards(shapes, max_shard_size=SHARD_BYTES)
    if not plan.is_sharded:
        save_file({n: t.contiguous() for n, t in tensors.items()}, folder / SINGLE_FILE, metadata)
        return
    for file, names in plan.filename_to_tensors.items():
        save_file({n: tensors[n].contiguous() for n in names}, folder / file, metadata)
    index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _change_config(path: Path, changed: Mapping[str, Any]) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    for key, value in changed.items():
        old_name = key == "dtype" and "torch_dtype" in config and "dtype" not in config
        config["torch_dtype" if old_name else key] = value
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def write_origin(
    recipe: Recipe,
    founders: FounderSet,
    folder: Path,
    *,
    tags: Sequence[str],
    notes: Sequence[str] = (),
) -> None:
    """Write how an individual was made into ``folder``: ``recipe.json`` and the model card.

    ``notes`` are paragraphs for the card, and ``tags`` follow its metadata's conventions.
    """
    used = {part for part in walk(recipe) if isinstance(part, Founder)}
    lines = [f"- {f.name}: `{f.digest}`" for f in sorted(used, key=lambda f: f.name)]
    card = [
        "---",
        f"tags: [{', '.join((*tags, 'evo-models'))}]",
        "---",
        "# An evolved model",
        "",
        f"Individual `{recipe.id}`: {describe(recipe)}",
        "",
        "Made by evo-models without gradients, from these founders (SHA-256 of their tensors):",
        "",
        *lines,
        "",
        "`recipe.json` rebuilds it from them.",
        "",
        *(line for note in notes for line in (note, "")),
    ]
    (folder / "recipe.json").write_text(to_json(recipe) + "\n", encoding="utf-8")
    (folder / "README.md").write_text("\n".join(card), encoding="utf-8")
