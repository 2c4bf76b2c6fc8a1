"""PEFT LoRA folders as founders: factors by name of the base's tensor, the adapter's scaling in B.

Read without ``peft``, from ``adapter_config.json`` and ``adapter_model.safetensors``. What is not plain
LoRA is refused by name: read as plain LoRA, it would be another model than its owner's.
"""

import difflib
import hashlib
import json
import math
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cluster.errors import CheckpointError
from operators.recipe import Founder
from operators.tensors.low_rank import Adapter, Factors
from operators.tensors.weights import Weights

ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_FILE: Final = "adapter_model.safetensors"
_PICKLED: Final = "adapter_model.bin"

_KEY: Final = re.compile(
    r"base_model\.model\.(?P<module>.+)\.(?:(?P<linear>lora_[AB])\.weight|(?P<embedding>lora_embedding_[AB]))"
)
# Settings that decide ΔW are read; these others say where an adapter came from or how it was trained.
_READ: Final = {
    *("peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"),
    *("fan_in_fan_out", "init_lora_weights", "bias"),
}
_NO_MATTER: Final = {
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "target_modules", "exclude_modules", "lora_dropout", "layers_to_transform"),
    *("layers_pattern", "megatron_config", "megatron_core", "loftq_config", "eva_config"),
    *("qalora_group_size", "runtime_config"),
}
# Starts that leave the base as it is. PiSSA, OLoRA, CorDA, LoftQ and others change the base's weights.
_PLAIN_STARTS: Final = (True, False, None, "gaussian", "eva", "orthogonal")
_MERGE_FIRST: Final = "Merge it into its base with peft (merge_and_unload) and use that as founder"
_OTHER_BASE: Final = "The base must be the model that the adapter was trained on"


@dataclass(frozen=True, slots=True)
class _Settings:
    """What ``adapter_config.json`` says of ΔW. ``transposed``: PEFT's ``fan_in_fan_out``."""

    rank: int
    alpha: float
    rank_stabilised: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    transposed: bool

    def rank_of(self, module: str) -> int:
        return int(self.rank_pattern.get(_pattern(self.rank_pattern, module), self.rank))

    def scaling_of(self, module: str) -> float:
        """alpha / r; alpha / √r for rsLoRA (Kalajdzievski 2023, arXiv 2312.03732)."""
        alpha = float(self.alpha_pattern.get(_pattern(self.alpha_pattern, module), self.alpha))
        rank = self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def is_adapter(path: Path) -> bool:
    """Whether ``path`` is a PEFT adapter folder and not a checkpoint that has one beside it."""
    has_whole = (path / "model.safetensors").is_file()
    has_shards = (path / "model.safetensors.index.json").is_file()
    return (path / ADAPTER_CONFIG).is_file() and not has_whole and not has_shards


def open_adapter(path: Path, base: Founder, ancestor: Weights) -> Adapter:
    """The adapter in the folder ``path`` as changes of ``base``, whose tensors are ``ancestor``.

    One factor is a view of the memory-mapped file; the other is float32 and holds the scaling.

    Raises:
        CheckpointError: no plain LoRA, or one that does not fit the base; names file, key, shapes.
    """
    settings = _settings(path / ADAPTER_CONFIG)
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
    """SHA-256 over the base's digest and the factors, in order of name: what the model is made of."""
    digest = hashlib.sha256(f"adapter of {adapter.base.digest}|".encode())
    for name, factors in sorted(adapter.factors.items()):
        for tensor in (factors.b, factors.a):
            digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            flat = tensor.contiguous().reshape(-1).view(torch.uint8)
            digest.update(flat.cpu().numpy().data)
    return digest.hexdigest()


def _settings(file: Path) -> _Settings:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: not a PEFT adapter's config ({error})") from error
    if not isinstance(config, dict):
        raise CheckpointError(
            f"{file}: not a PEFT adapter's config: expected an object, got {type(config).__name__}"
        )
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(
            f"{file}: peft_type is {kind!r}; only LORA can be read. {_MERGE_FIRST}"
        )
    _refuse_variants(file, config)
    ranks, alphas = (_patterns(file, config, key) for key in ("rank_pattern", "alpha_pattern"))
    return _Settings(
        _rank(file, "r", config.get("r")),
        _alpha(file, "lora_alpha", config.get("lora_alpha")),
        bool(config.get("use_rslora")),
        {p: _rank(file, f"rank_pattern[{p!r}]", value) for p, value in ranks.items()},
        {p: _alpha(file, f"alpha_pattern[{p!r}]", value) for p, value in alphas.items()},
        bool(config.get("fan_in_fan_out")),
    )


def _rank(file: Path, key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"{file}: {key} must be a whole number of 1 or more, got {value!r}")
    return value


def _alpha(file: Path, key: str, value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) <= sys.float_info.max:
        raise CheckpointError(f"{file}: {key} must be a finite number, got {value!r}")
    return float(value)


def _patterns(file: Path, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise CheckpointError(f"{file}: {key} must map patterns to numbers, got {patterns!r}")
    for pattern in patterns:
        try:
            re.compile(_matching(pattern))
        except re.error as error:
            raise CheckpointError(
                f"{file}: {key}: {pattern!r} is no regular expression ({error})"
            ) from error
    return patterns


def _refuse_variants(file: Path, config: Mapping[str, Any]) -> None:
    """Refuse every setting that is in use and not known to leave plain LoRA what it is."""
    if config.get("use_dora"):
        raise CheckpointError(
            f"{file}: use_dora: a DoRA adapter also scales the base's columns, which is no sum. "
            f"{_MERGE_FIRST}"
        )
    if config.get("modules_to_save"):
        raise CheckpointError(
            f"{file}: modules_to_save is {config['modules_to_save']}: whole modules were trained "
            f"beside the factors. {_MERGE_FIRST}"
        )
    if config.get("bias", "none") != "none":
        raise CheckpointError(
            f"{file}: bias is {config['bias']!r}: the base's biases were trained too. {_MERGE_FIRST}"
        )
    if config.get("init_lora_weights", True) not in _PLAIN_STARTS:
        raise CheckpointError(
            f"{file}: init_lora_weights is {config['init_lora_weights']!r}, which changes the base's "
            "weights. Save it again with peft's path_initial_model_for_weight_conversion, which makes "
            "a plain LoRA of it"
        )
    for name, value in config.items():
        if value and name not in _READ and name not in _NO_MATTER:
            raise CheckpointError(
                f"{file}: {name} is {value!r}, a variant of LoRA that can't be read. {_MERGE_FIRST}"
            )


def _pattern(patterns: Collection[str], module: str) -> str:
    """The key of a rank or alpha pattern that holds for ``module``, by PEFT's rule; else ``module``."""
    return next((p for p in patterns if re.match(_matching(p), module)), module)


def _matching(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns the tensors of one adapter's ``file`` into changes of the base's tensors."""

    file: Path
    settings: _Settings
    ancestor: Weights

    def factors(self, tensors: Mapping[str, Tensor]) -> dict[str, Factors]:
        """Every pair of factors by the base's name of the tensor that it changes."""
        pairs: dict[tuple[str, bool], dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            found = _KEY.fullmatch(key)
            if found is None:
                self._check_base_copy(key, tensor)
                continue
            which = (found["linear"] or found["embedding"])[-1]
            pairs.setdefault((found["module"], bool(found["embedding"])), {})[which] = tensor
        made: dict[str, Factors] = {}
        modules: dict[str, str] = {}  # that change each tensor
        for (module, embedding), pair in sorted(pairs.items()):
            if pair.keys() != {"A", "B"}:
                raise CheckpointError(f"{self.file}: {module} has only one of lora_A and lora_B")
            name = self._tensor_name(module)
            if name in made:
                raise CheckpointError(
                    f"{self.file}: {modules[name]!r} and {module!r} both change the base's {name!r}; "
                    f"one of them is not of this base. {_OTHER_BASE}"
                )
            modules[name] = module
            if embedding:
                self._check_own_head(name)
            made[name] = self._pair(pair["A"], pair["B"], module, name, embedding)
        return made

    def _check_base_copy(self, key: str, tensor: Tensor) -> None:
        """PEFT saves a targeted embedding's own weights too; they may stay if they are the base's."""
        if "lora_magnitude_vector" in key:
            raise CheckpointError(f"{self.file}: {key!r} is of a DoRA adapter. {_MERGE_FIRST}")
        name = key.removeprefix("base_model.model.").replace(".base_layer.", ".")
        own = self.ancestor.tensors.get(name)
        if own is None or not torch.equal(own, tensor.to(own.dtype)):
            raise CheckpointError(
                f"{self.file}: {key!r} is neither lora_A nor lora_B of a module: something beside the "
                f"factors was trained (modules_to_save, biases or a variant of LoRA). {_MERGE_FIRST}"
            )

    def _tensor_name(self, module: str) -> str:
        """The tensor that a module's factors change. Some checkpoints leave the model's prefix out."""
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
                f"share: peft changes the one and not the other. {_MERGE_FIRST}"
            )

    def _pair(self, a: Tensor, b: Tensor, module: str, name: str, embedding: bool) -> Factors:
        shapes = f"lora_A {list(a.shape)} and lora_B {list(b.shape)}"
        if a.ndim != 2 or b.ndim != 2:
            raise CheckpointError(
                f"{self.file}: {module} has {shapes}, which are no matrices. {_MERGE_FIRST}"
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
        # The flag is of all modules, but Conv1D and Linear may stand side by side: PEFT goes by the
        # module's type, and a shape that fits only one way tells that type better than the flag.
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
