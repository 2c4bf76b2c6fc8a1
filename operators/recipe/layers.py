"""Where a tensor stands in a model, read from its name: before the layers, in a layer, or after them.

Names are all that is known here, and the rule covers every architecture of
:data:`operators.build.architectures.ARCHITECTURES` and the usual names of others:

- ``layers.3.``, ``layer.3.``, ``h.3.``, ``block.3.`` or ``blocks.3.`` in a name: layer 3;
- otherwise a name with a part that holds ``embed`` or is ``wte``, ``wpe``, ``shared`` or ``project_in``
  is before the layers (``embed_out``, the output head of GPT-NeoX, is not);
- every other name (final norms, output heads) is after the layers.
"""

import re
from collections.abc import Iterable

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")
_BEFORE = re.compile(
    r"(?:^|\.)(?:(?!embed_out\.)[^.]*embed[^.]*|wte|wpe|shared|project_in)(?:\.|$)"
)


def layer_index(tensor: str) -> int | None:
    """The layer a tensor belongs to, or None outside the layers: ``model.layers.3.mlp...`` is 3."""
    found = _LAYER.search(tensor)
    return int(found.group(1)) if found else None


def follows_layers(tensor: str) -> bool:
    """Whether a tensor comes after the last layer, as a final norm or an output head does."""
    return layer_index(tensor) is None and _BEFORE.search(tensor) is None


def at_layer(tensor: str, layer: int) -> str:
    """The name of ``tensor`` in another layer; outside the layers, its own."""
    found = _LAYER.search(tensor)
    return tensor if found is None else f"{tensor[: found.start(1)]}{layer}{tensor[found.end(1) :]}"


def layer_count(tensors: Iterable[str]) -> int:
    """One more than the highest layer index among the tensor names; 0 without layers."""
    return max((i + 1 for t in tensors if (i := layer_index(t)) is not None), default=0)


def layer_group(tensor: str, layers: int, groups: int) -> int:
    """The layer group of a tensor in a model of ``layers`` layers: layer l belongs to ``l * groups // layers``.

    Tensors before the layers belong to the first group and tensors after them to the last, as in the
    slices of mergekit-evolve. A model without layers has one group.
    """
    if not layers:
        return 0
    layer = layer_index(tensor)
    if layer is None:
        return groups - 1 if follows_layers(tensor) else 0
    return layer * groups // layers
