"""ARCHITECTURES: how the families of transformers name their tensors, and how a path's scales fold.

A path runs layers of several models one after the other and multiplies the residual stream by a scale
on entering a step. In a pre-norm model the layers read the stream through norms that ignore its size,
so the stream may be carried unscaled if what each layer *adds* to it is divided by the product of the
scales so far: by dividing the layer's output projections, or, in models that norm each output, the
weight of that norm. A layer that reads the stream without a norm gets its input projections multiplied
by that product as well. That is exact but for the norms' epsilon.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from operators.errors import EvoError

if TYPE_CHECKING:  # readers of a lineage ask for a layout, and must not wait for torch
    from torch import Tensor


class ArchitectureError(EvoError):
    """A model's layers can't be rearranged; the message names its architecture and the known ones."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One layout.

    ``layers`` is what stands before the layer's number in the names of its tensors; ``head`` are the
    prefixes of the final norm and the output head; everything else outside the layers is the
    embedding's. ``outputs`` are the tensors of a layer that a fold divides by the scale, and ``inputs``
    those that it multiplies. A norm that multiplies by 1 + w has ``offset`` 1. ``depth`` is the config's
    key for the number of layers.
    """

    layers: str
    head: tuple[str, ...]
    embedding: str
    output_head: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    offset: float = 0.0
    depth: str = "num_hidden_layers"

    def split(self, tensor: str) -> tuple[int, str] | None:
        """(layer, name within the layer) of a tensor, or None outside the layers."""
        if not tensor.startswith(self.layers):
            return None
        number, _, rest = tensor.removeprefix(self.layers).partition(".")
        return (int(number), rest) if number.isdigit() else None

    def name(self, layer: int, rest: str) -> str:
        return f"{self.layers}{layer}.{rest}"

    def is_head(self, tensor: str) -> bool:
        return tensor.startswith(self.head)

    def fold(self, rest: str, tensor: "Tensor", scale: float) -> "Tensor":
        """A layer's tensor ``rest`` as it stands in a checkpoint without scales.

        ``scale`` is the product of the scales up to and including the layer's own step. Computed in
        float32, in the tensor's dtype.
        """
        if scale != 1.0 and rest in self.outputs:
            return ((tensor.float() + self.offset) / scale - self.offset).to(tensor.dtype)
        if scale != 1.0 and rest in self.inputs:
            return (tensor.float() * scale).to(tensor.dtype)
        return tensor

    def without_prefix(self) -> "Architecture":
        """The same for checkpoints of the bare model: ``h.0.ln_1.weight``, as some on the hub are."""
        prefix = self.layers.partition(".")[0] + "."
        return replace(
            self,
            layers=self.layers.removeprefix(prefix),
            head=tuple(h.removeprefix(prefix) for h in self.head),
            embedding=self.embedding.removeprefix(prefix),
        )


_LLAMA = Architecture(
    layers="model.layers.",
    head=("model.norm.", "lm_head."),
    embedding="model.embed_tokens.weight",
    output_head="lm_head.weight",
    outputs=(
        "self_attn.o_proj.weight",
        "self_attn.o_proj.bias",
        "mlp.down_proj.weight",
        "mlp.down_proj.bias",
    ),
)
_GEMMA = Architecture(
    layers="model.layers.",
    head=("model.norm.", "lm_head."),
    embedding="model.embed_tokens.weight",
    output_head="lm_head.weight",
    outputs=("post_attention_layernorm.weight", "post_feedforward_layernorm.weight"),
    offset=1.0,
)
_GPT2 = Architecture(
    layers="transformer.h.",
    head=("transformer.ln_f.", "lm_head."),
    embedding="transformer.wte.weight",
    output_head="lm_head.weight",
    outputs=("attn.c_proj.weight", "attn.c_proj.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"),
    depth="n_layer",
)
_NEOX = Architecture(
    layers="gpt_neox.layers.",
    head=("gpt_neox.final_layer_norm.", "embed_out."),
    embedding="gpt_neox.embed_in.weight",
    output_head="embed_out.weight",
    outputs=(
        "attention.dense.weight",
        "attention.dense.bias",
        "mlp.dense_4h_to_h.weight",
        "mlp.dense_4h_to_h.bias",
    ),
)
_OLMO2 = Architecture(
    layers="model.layers.",
    head=("model.norm.", "lm_head."),
    embedding="model.embed_tokens.weight",
    output_head="lm_head.weight",
    outputs=("post_attention_layernorm.weight", "post_feedforward_layernorm.weight"),
    inputs=(
        "self_attn.q_proj.weight",
        "self_attn.k_proj.weight",
        "self_attn.v_proj.weight",
        "mlp.gate_proj.weight",
        "mlp.up_proj.weight",
    ),
)

ARCHITECTURES: Final[Mapping[str, Architecture]] = MappingProxyType(
    {
        "llama": _LLAMA,
        "mistral": _LLAMA,
        "qwen2": _LLAMA,
        "qwen3": _LLAMA,
        "gemma2": _GEMMA,
        "gemma3_text": _GEMMA,
        "gpt2": _GPT2,
        "gpt_neox": _NEOX,
        "olmo2": _OLMO2,
    }
)

# Config entries that hold one value for each layer.
_PER_LAYER = ("layer_types", "no_rope_layers", "mlp_layer_types", "attention_types")


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The layout of a model by its config (the contents of config.json).

    Raises:
        ArchitectureError: it is none of the known ones, or one whose layers depend on their number.
    """
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise ArchitectureError(
            f"data-flow paths do not know the architecture {kind!r}. Known: {', '.join(ARCHITECTURES)}."
        )
    if config.get("scale_attn_by_inverse_layer_idx"):
        raise ArchitectureError(
            "this gpt2 scales attention by the layer's number (scale_attn_by_inverse_layer_idx), so "
            "its layers can't change places"
        )
    return ARCHITECTURES[kind]


def path_config(config: Mapping[str, Any], layers: Sequence[int]) -> dict[str, Any]:
    """The entries of ``config`` that change when a model has the given ``layers``, in this order.

    The number of layers, and every list with one entry for each layer (kinds of attention, sliding
    windows): each step keeps the kind of the layer that it came from.
    """
    depth = architecture_of(config).depth
    lists = _per_layer(config, config[depth])
    return {depth: len(layers)} | {k: [v[layer] for layer in layers] for k, v in lists.items()}


def path_kinds(config: Mapping[str, Any], layers: Sequence[int]) -> tuple[object, ...]:
    """Equal for paths that differ in their tensors only, not in what their layers do with them."""
    lists = _per_layer(config, config[architecture_of(config).depth])
    return tuple(tuple(str(v[layer]) for v in lists.values()) for layer in layers)


def _per_layer(config: Mapping[str, Any], depth: int) -> dict[str, Sequence[Any]]:
    found = {key: config.get(key) for key in _PER_LAYER}
    return {k: v for k, v in found.items() if isinstance(v, list | tuple) and len(v) == depth}
