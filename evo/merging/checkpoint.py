"""A model to be merged: its tensors as views of files, by layer, and its config."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from cluster.founders.checkpoints import CheckpointError, tensors_by_file
from operators.recipe.layers import at_layer, layer_count, layer_index

_LAYERS_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """All tensors of a model folder, mapped, not read.

    Attributes:
        layers: of each layer, its tensors' names by what they would be called in layer 0.
        outside: the names of tensors outside the layers.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    layers: tuple[Mapping[str, str], ...]
    outside: tuple[str, ...]
    config: Mapping[str, Any]


def open_model(path: Path) -> ModelFiles:
    """Map the tensors of a checkpoint folder.

    Raises:
        CheckpointError: it has none, or something in it can't be read.
    """
    tensors: dict[str, Tensor] = {}
    for file, names in tensors_by_file(path).items():
        with safe_open(file, framework="pt") as opened:
            tensors |= {name: opened.get_tensor(name) for name in names}
    layers: tuple[dict[str, str], ...] = tuple({} for _ in range(layer_count(tensors)))
    for name in tensors:
        index = layer_index(name)
        if index is not None:
            layers[index][at_layer(name, 0)] = name
    outside = tuple(n for n in tensors if layer_index(n) is None)
    return ModelFiles(path, tensors, layers, outside, _config(path / "config.json"))


def _config(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: can't be read ({error})") from error
    return config


def stacked_config(
    config: Mapping[str, Any], origins: tuple[tuple[Mapping[str, Any], int], ...]
) -> dict[str, Any]:
    """``config`` for a model whose layers are ``origins``: the config and the layer each came from.

    The number of layers is set, and lists that have an entry for each layer (``layer_types``) follow
    the layers.

    Raises:
        ValueError: the config does not say how many layers there are, by any name known here.
    """
    key = next((k for k in _LAYERS_KEYS if k in config), None)
    if key is None:
        if isinstance(config.get("text_config"), Mapping):
            inner = tuple((c.get("text_config", {}), layer) for c, layer in origins)
            return {**config, "text_config": stacked_config(config["text_config"], inner)}
        raise ValueError(f"has none of {', '.join(_LAYERS_KEYS)}")
    changed = {
        name: [c[name][layer] for c, layer in origins]
        for name, value in config.items()
        if name.endswith("layer_types") and isinstance(value, list)
    }
    return {**config, **changed, key: len(origins)}
