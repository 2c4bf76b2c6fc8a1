"""Individuals as ordinary checkpoints, which plain transformers loads."""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import safe_open
from safetensors.torch import save_file

from cluster.founders import (
    INDEX_FILE,
    SINGLE_FILE,
    FounderSet,
    layout_for,
    map_founders,
    tensor_files,
)
from evo.errors import UserError
from operators.materialize import Materializer
from operators.recipe import Founder, Recipe, describe, to_json, walk

SHARD_BYTES = 5 * 10**9
# Not copied from the base: its weights in any form, and what this export writes itself.
_NOT_COPIED = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".index.json")


def export(recipe: Recipe, founders: FounderSet, out: Path, *, dtype: str = "") -> Path:
    """Build an individual and write it to the folder ``out``: weights, config, tokenizer, model card.

    ``dtype`` is of the weights ("bfloat16"); the base's own by default. Written to a temporary folder
    beside ``out`` and renamed, so a half-written checkpoint never has the name.

    Raises:
        UserError: ``out`` exists and is not empty.
        CheckpointError: founders changed since the run.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists already; choose another --out")
    mapped = map_founders(founders.all_files())
    kind = getattr(torch, dtype) if dtype else None
    materializer = Materializer(layout_for(mapped[founders.base.founder], kind), mapped)
    tensors = dict(materializer.build(recipe).tensors)
    base = founders.base.path
    for file in tensor_files(base):  # integer buffers are nobody's genes: they are the base's
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                if name not in tensors:
                    tensors[name] = opened.get_tensor(name)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _save_tensors(tensors, temporary)
        if base.is_dir():
            for file in sorted(base.iterdir()):
                if file.is_file() and not file.name.endswith(_NOT_COPIED):
                    shutil.copyfile(file, temporary / file.name)
        if dtype and (temporary / "config.json").is_file():
            _set_dtype(temporary / "config.json", dtype)
        (temporary / "recipe.json").write_text(to_json(recipe) + "\n", encoding="utf-8")
        (temporary / "README.md").write_text(_card(recipe, founders), encoding="utf-8")
        temporary.chmod(0o755)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return out


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


def _set_dtype(path: Path, dtype: str) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    key = "torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"
    config[key] = dtype
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _card(recipe: Recipe, founders: FounderSet) -> str:
    used = {part for part in walk(recipe) if isinstance(part, Founder)}
    lines = [f"- {f.name}: `{f.digest}`" for f in sorted(used, key=lambda f: f.name)]
    return "\n".join(
        [
            "---",
            "tags: [merge, evo-models]",
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
        ]
    )
