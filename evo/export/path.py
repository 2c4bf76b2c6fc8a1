"""Data-flow paths as ordinary checkpoints: scales folded away, and a config of the path's own depth."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from cluster.founders.checkpoints import tensors_by_file
from evo.errors import EvoError
from operators.build.architectures import Architecture, path_config
from operators.build.paths import LayerPath, PathBuilder, folded
from operators.recipe import Route


def config_of(base: Path) -> dict[str, Any]:
    """The config of a model folder as transformers reads it: what older files leave out is filled in.

    Which layers have sliding attention is such a thing: older files say it by a rule on the layer's
    number, which no longer holds once layers change places.
    """
    import transformers

    config: dict[str, Any] = transformers.AutoConfig.from_pretrained(
        base, local_files_only=True, trust_remote_code=False
    ).to_dict()
    said: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    return config | said


def path_checkpoint(
    route: Route, builder: PathBuilder, base: Path
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a path as a model of its own, and the entries of the base's config that change.

    Raises:
        EvoError: the path's scales multiply up to what the weights' dtype can't hold.
        ArchitectureError: layers that are not there.
    """
    path = builder.build(route)
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in folded(path, builder.architecture):
        if not bool(torch.isfinite(tensor).all()):
            raise EvoError(
                f"individual {route.id[:12]}: folding its scales into {name} gives infinite values in "
                f"{str(tensor.dtype).removeprefix('torch.')}; export it in float32 (engine.dtype)"
            )
        # A layer that comes twice is one tensor in a path, and two in a checkpoint.
        tensors[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    tensors |= _buffers(path, builder.architecture, base, set(builder.layout.names))
    changed = path_config(config_of(base), path.layers)
    if route.head != route.embed:
        changed["tie_word_embeddings"] = False
    return tensors, changed


def _buffers(
    path: LayerPath, architecture: Architecture, base: Path, merged: set[str]
) -> dict[str, Tensor]:
    """The base's integer buffers, those of a layer once for each step that it takes."""
    found: dict[str, Tensor] = {}
    for file, names in tensors_by_file(base).items():
        with safe_open(file, framework="pt") as opened:
            for name in names:
                if name not in merged:
                    buffer = opened.get_tensor(name)
                    found |= {n: buffer.clone() for n in _places(name, path, architecture)}
    return found


def _places(name: str, path: LayerPath, architecture: Architecture) -> Iterator[str]:
    at = architecture.split(name)
    if at is None:
        yield name
    else:
        yield from (
            architecture.name(step, at[1])
            for step, layer in enumerate(path.layers)
            if layer == at[0]
        )
