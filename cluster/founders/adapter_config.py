"""adapter_config.json of PEFT: what decides the change of each module; refuses variants of LoRA.

Reading a variant as plain LoRA would give another model than its owner's.
"""

import json
import math
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cluster.errors import CheckpointError

ADAPTER_CONFIG: Final = "adapter_config.json"
MERGE_FIRST: Final = "Merge it into its base with peft (merge_and_unload) and use that as founder"

# Settings that decide ΔW and are read.
_READ: Final = {
    *("peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"),
    *("fan_in_fan_out", "init_lora_weights", "bias"),
}
# Settings that say where an adapter came from or how it was trained.
_IGNORED: Final = {
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "target_modules", "exclude_modules", "lora_dropout", "layers_to_transform"),
    *("layers_pattern", "megatron_config", "megatron_core", "loftq_config", "eva_config"),
    *("qalora_group_size", "runtime_config"),
}
# Initialisations that leave the base as it is. PiSSA, OLoRA, CorDA, LoftQ and others change its weights.
_PLAIN_INITIALISATIONS: Final = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Rank and alpha of each module. ``transposed``: PEFT's ``fan_in_fan_out``."""

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


def read_settings(file: Path) -> LoraSettings:
    """Read an ``adapter_config.json``.

    Raises:
        CheckpointError: not a config of plain LoRA; the message names the setting.
    """
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
            f"{file}: peft_type is {kind!r}; only LORA can be read. {MERGE_FIRST}"
        )
    _refuse_variants(file, config)
    ranks, alphas = (_patterns(file, config, key) for key in ("rank_pattern", "alpha_pattern"))
    return LoraSettings(
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
                f"{file}: {key}: {pattern!r} is not a regular expression ({error})"
            ) from error
    return patterns


def _refuse_variants(file: Path, config: Mapping[str, Any]) -> None:
    """Refuse every setting in use that may make the change more than B·A times a scaling."""
    if config.get("use_dora"):
        raise CheckpointError(
            f"{file}: use_dora: a DoRA adapter also scales the base's columns, which is not a sum. "
            f"{MERGE_FIRST}"
        )
    if config.get("modules_to_save"):
        raise CheckpointError(
            f"{file}: modules_to_save is {config['modules_to_save']}: whole modules were trained "
            f"beside the factors. {MERGE_FIRST}"
        )
    if config.get("bias", "none") != "none":
        raise CheckpointError(
            f"{file}: bias is {config['bias']!r}: the base's biases were trained too. {MERGE_FIRST}"
        )
    if config.get("init_lora_weights", True) not in _PLAIN_INITIALISATIONS:
        raise CheckpointError(
            f"{file}: init_lora_weights is {config['init_lora_weights']!r}, which changes the base's "
            "weights. Save it again with peft's path_initial_model_for_weight_conversion, which makes "
            "a plain LoRA of it"
        )
    for name, value in config.items():
        if value and name not in _READ and name not in _IGNORED:
            raise CheckpointError(
                f"{file}: {name} is {value!r}, a variant of LoRA that can't be read. {MERGE_FIRST}"
            )


def _pattern(patterns: Collection[str], module: str) -> str:
    """The first of the rank or alpha ``patterns`` that matches ``module``, as in PEFT; else ``module``."""
    return next((p for p in patterns if re.match(_matching(p), module)), module)


def _matching(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"
