"""PEFT LoRA folders as founders: low-rank factors by the name of the base's tensor that they change.

Read without ``peft``, from ``adapter_config.json`` and ``adapter_model.safetensors``.
"""

import difflib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cluster.errors import CheckpointError
from cluster.founders.adapter_config import (
    ADAPTER_CONFIG as ADAPTER_CONFIG,
)
from cluster.founders.adapter_config import MERGE_FIRST, LoraSettings, read_settings
from operators.recipe import Founder
from operators.tensors.low_rank import Adapter, Factors
from operators.tensors.weights import Weights

ADAPTER_FILE: Final = "adapter_model.safetensors"
_PICKLED: Final = "adapter_model.bin"
_KEY: Final = re.compile(
    r"base_model\.model\.(?P<module>.+)\.(?:(?P<linear>lora_[AB])\.weight|(?P<embedding>lora_embedding_[AB]))"
)
_OTHER_BASE: Final = "The base must be the model that the adapter was trained on"


def is_adapter(path: Path) -> bool:
    """Whether ``path`` is a PEFT adapter folder without a whole model in it."""
    has_whole = (path / "model.safetensors").is_file()
    has_shards = (path / "model.safetensors.index.json").is_file()
    return (path / ADAPTER_CONFIG).is_file() and not has_whole and not has_shards


def open_adapter(path: Path, base: Founder, ancestor: Weights) -> Adapter:
    """Read the adapter in the folder ``path`` as changes of ``base``, whose tensors are ``ancestor``.

    Factor A is a view of the memory-mapped file; factor B is float32 and includes the scaling.

    Raises:
        CheckpointError: not a plain LoRA, or it does not fit the base; names file, key and shapes.
    """
    settings = read_settings(path / ADAPTER_CONFIG)
    file = path / ADAPTER_FILE
    if not file.is_file() and (path / _PICKLED).is_file():
        raise CheckpointError(
            f"{path / _PICKLED}: pickled weights can run code when loaded and are refused. Load it "
            "with peft and save_pretrained it again (safetensors is the default)"
        )
    if not file.is_file():
        raise CheckpointError(f"{file}: missing; an adapter needs it beside its {ADAPTER_CONFIG}")
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: not a readable safetensors file ({error})") from error
    factors = _Reader(file, settings, ancestor).factors(tensors)
    if not factors:
        raise CheckpointError(f"{file}: holds no lora_A and lora_B tensors")
    return Adapter(base, factors)


def adapter_digest(adapter: Adapter) -> str:
    """SHA-256 over the base's digest and the factors, in order of name."""
    digest = hashlib.sha256(f"adapter of {adapter.base.digest}|".encode())
    for name, factors in sorted(adapter.factors.items()):
        for tensor in (factors.b, factors.a):
            digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            flat = tensor.contiguous().reshape(-1).view(torch.uint8)
            digest.update(flat.cpu().numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the factors of one adapter's ``file``."""

    file: Path
    settings: LoraSettings
    ancestor: Weights

    def factors(self, tensors: Mapping[str, Tensor]) -> dict[str, Factors]:
        """The pairs of factors, by the name of the base's tensor that each changes."""
        pairs: dict[tuple[str, bool], dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            found = _KEY.fullmatch(key)
            if found is None:
                self._check_base_copy(key, tensor)
                continue
            which = (found["linear"] or found["embedding"])[-1]
            pairs.setdefault((found["module"], bool(found["embedding"])), {})[which] = tensor
        made: dict[str, Factors] = {}
        modules: dict[str, str] = {}  # the module that changes each tensor
        for (module, embedding), pair in sorted(pairs.items()):
            if pair.keys() != {"A", "B"}:
                raise CheckpointError(f"{self.file}: {module} has only one of lora_A and lora_B")
            name = self._tensor_name(module)
            if name in made:
                raise CheckpointError(
                    f"{self.file}: {modules[name]!r} and {module!r} both change the base's {name!r}; "
                    f"one of them does not belong to this base. {_OTHER_BASE}"
                )
            modules[name] = module
            if embedding:
                self._check_own_head(name)
            made[name] = self._pair(pair["A"], pair["B"], module, name, embedding)
        return made

    def _check_base_copy(self, key: str, tensor: Tensor) -> None:
        """Accept a tensor without factors if it equals the base's: PEFT saves targeted embeddings whole, too."""
        if "lora_magnitude_vector" in key:
            raise CheckpointError(f"{self.file}: {key!r} belongs to a DoRA adapter. {MERGE_FIRST}")
        name = key.removeprefix("base_model.model.").replace(".base_layer.", ".")
        own = self.ancestor.tensors.get(name)
        if own is None or not torch.equal(own, tensor.to(own.dtype)):
            raise CheckpointError(
                f"{self.file}: {key!r} is neither lora_A nor lora_B of a module: something beside the "
                f"factors was trained (modules_to_save, biases or a variant of LoRA). {MERGE_FIRST}"
            )

    def _tensor_name(self, module: str) -> str:
        """The base's tensor that a module's factors change; one of them may lack the model's prefix."""
        wanted = f"{module}.weight"
        names = self.ancestor.layout.names
        if wanted in self.ancestor.tensors:
            return wanted
        near = [n for n in names if wanted.endswith(f".{n}") or n.endswith(f".{wanted}")]
        if len(near) != 1:
            like = difflib.get_close_matches(wanted, names, n=1)
            raise CheckpointError(
                f"{self.file}: changes {wanted!r}, which the base does not have"
                + (f" (it has {like[0]!r})" if like else "")
                + f". {_OTHER_BASE}; a head that shares the embedding's weights can't have an adapter"
            )
        return near[0]

    def _check_own_head(self, name: str) -> None:
        shape = self.ancestor[name].shape
        if sum(t.shape == shape for t in self.ancestor.tensors.values()) < 2:
            raise CheckpointError(
                f"{self.file}: changes the embedding {name!r}, whose weights the base's head seems to "
                f"share: peft changes only one of the two. {MERGE_FIRST}"
            )

    def _pair(self, a: Tensor, b: Tensor, module: str, name: str, embedding: bool) -> Factors:
        shapes = f"lora_A {list(a.shape)} and lora_B {list(b.shape)}"
        if a.ndim != 2 or b.ndim != 2:
            raise CheckpointError(
                f"{self.file}: {module} has {shapes}, which are not matrices. {MERGE_FIRST}"
            )
        if not (a.is_floating_point() and b.is_floating_point()):
            raise CheckpointError(
                f"{self.file}: {module} has factors of {a.dtype} and {b.dtype}; they must be "
                "floating-point. Save the adapter again unquantized"
            )
        rank = self.settings.rank_of(module)
        if a.shape[0] != rank or b.shape[1] != rank:
            raise CheckpointError(
                f"{self.file}: {module} has {shapes}, but {ADAPTER_CONFIG} gives it rank {rank}"
            )
        if not all(bool(torch.isfinite(t.float()).all()) for t in (a, b)):
            raise CheckpointError(f"{self.file}: {module} holds NaN or infinite values")
        expected = tuple(self.ancestor[name].shape)
        plain, swapped = (b.shape[0], a.shape[1]), (a.shape[1], b.shape[0])
        # The flag holds for all modules, but a model may have both Conv1D and Linear. PEFT decides by the
        # module's type; a shape that fits only one way tells the type better than the flag.
        flag = self.settings.transposed
        transposed = embedding or (flag if plain == swapped else swapped == expected)
        if (swapped if transposed else plain) != expected:
            raise CheckpointError(
                f"{self.file}: the change of {name!r} is {list(swapped if flag else plain)}, but the "
                f"base's tensor is {list(expected)}. {_OTHER_BASE}"
            )
        scaling = self.settings.scaling_of(module)
        # Transposed: ΔW = (B·A)ᵀ = Aᵀ·Bᵀ.
        left, right = (a.T, b.T) if transposed else (b, a)
        scaled = left.float() * scaling
        if not bool(torch.isfinite(scaled).all()):
            raise CheckpointError(
                f"{self.file}: the factors of {module} times their scaling {scaling:g} (lora_alpha "
                f"or alpha_pattern in {ADAPTER_CONFIG}) are too large for float32"
            )
        return Factors(scaled, right)
