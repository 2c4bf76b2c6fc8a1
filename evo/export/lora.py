"""Individuals as PEFT LoRA adapters of their base, which plain ``peft`` loads."""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from cluster.founders.adapters import ADAPTER_CONFIG, ADAPTER_FILE
from cluster.founders.checkpoints import FounderSet, base_weights, layout_for, map_founders
from evo.errors import EvoError
from evo.export.checkpoint import write_origin
from evo.files import whole_folder
from evo.vocabulary.write import TABLES_FILE
from operators.build.materialize import Materializer
from operators.recipe import Recipe, Route
from operators.tensors.low_rank import Factors, truncate
from operators.tensors.weights import Weights

Kind = Literal["linear", "conv1d", "embedding"]


@dataclass(frozen=True, slots=True)
class _Target:
    """A module that PEFT can change: its path in the model, and what it is."""

    path: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class AdapterReport:
    """What an exported adapter holds, and what it leaves out.

    Attributes:
        rank: the largest of any matrix.
        matrices: how many are changed.
        discarded: share of ‖ΔW‖² over all tensors that is not in the adapter.
        worst: the tensor that lost the greatest share of its own ‖ΔW‖², and that share.
        aligned_base: the base, where the run has aligned its vocabulary: no published model.
    """

    path: Path
    rank: int
    matrices: int
    discarded: float
    worst: tuple[str, float]
    aligned_base: Path | None = None

    def describe(self) -> str:
        text = f"LoRA of rank {self.rank} on {self.matrices} matrices, "
        name, share = self.worst
        if self.discarded == 0.0:
            text += "exact"
        else:
            text += (
                f"without {100 * self.discarded:.3g} % of ‖ΔW‖² "
                f"(most in {name}: {100 * share:.3g} % of its own)"
            )
        if self.aligned_base is not None:
            text += (
                f"; its base is the aligned one of the run, {self.aligned_base}, whose files link to "
                "the originals: keep both, or copy it whole (cp -rL) and set base_model_name_or_path "
                f"in {ADAPTER_CONFIG} to the copy"
            )
        return text


def export_adapter(
    recipe: Recipe,
    founders: FounderSet,
    out: Path,
    *,
    rank: int = 0,
    trust_remote_code: bool = False,
) -> AdapterReport:
    """Write an individual's change of the base to the folder ``out`` as a PEFT LoRA adapter.

    ``rank`` 0 is exact. Otherwise every matrix keeps its nearest change of that rank, and what is no
    matrix of a linear layer or embedding (norms, biases, a tied embedding) loses its change; the
    report and the model card say how much that is.

    Raises:
        EvoError: ``rank`` is negative, ``out`` is not empty, the base is no transformers model, the
            individual is the base or a path, or its change has no exact low rank and no ``rank`` is
            given.
        CheckpointError: founders changed since the run.
    """
    if rank < 0:
        raise EvoError(f"rank must be 1 or more, or 0 for an exact adapter; got {rank}")
    if isinstance(recipe, Route):
        raise EvoError(
            f"individual {recipe.id[:12]} is a data-flow path, which no adapter can be: "
            "export it as a checkpoint, without --adapter"
        )
    with whole_folder(out) as folder:
        mapped = map_founders(founders.all_files())
        base = base_weights(founders.base.founder, mapped)
        targets = _targets(founders.base.path, trust_remote_code)
        materializer = Materializer(layout_for(base, torch.float32), mapped)
        exact = materializer.factors(recipe)
        if exact is None and not rank:
            raise EvoError(
                "this individual is no low-rank change of the base: it holds whole models, full-rank "
                "noise, or a merge of full tensors. Export it merged (without --adapter), or give a "
                "--rank to keep only that much of it"
            )
        changes = (
            _changes(materializer.build(recipe), base, targets) if exact is None else dict(exact)
        )
        kept, report = _fitted(changes, targets, rank, out)
        if (founders.base.path / TABLES_FILE).is_file():
            report = replace(report, aligned_base=founders.base.path)
        _save(kept, targets, founders.base.path, folder)
        note = f"A LoRA adapter of `{founders.base.path}`: {report.describe()}."
        write_origin(recipe, founders, folder, tags=("lora", "peft"), notes=(note,))
    return report


def _targets(base: Path, trust_remote_code: bool) -> dict[str, _Target]:
    """The modules of the base that PEFT can change, by name of their tensor in the checkpoint."""
    import transformers
    from transformers.pytorch_utils import Conv1D

    if not (base / "config.json").is_file():
        raise EvoError(f"{base}: no config.json, so peft can't load it; export without --adapter")
    common: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    config = transformers.AutoConfig.from_pretrained(base, local_files_only=True, **common)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, **common)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head is not None and head.weight is embedding.weight
    kinds: dict[type, Kind] = {
        torch.nn.Linear: "linear",
        Conv1D: "conv1d",
        torch.nn.Embedding: "embedding",
    }
    prefix = f"{model.base_model_prefix}."
    targets = {}
    for path, module in model.named_modules():
        kind = kinds.get(type(module))
        if kind is None or (tied and module in (head, embedding)):
            continue
        target = _Target(path, kind)
        targets[f"{path}.weight"] = target
        targets.setdefault(f"{path.removeprefix(prefix)}.weight", target)
    return targets


def _changes(child: Weights, base: Weights, targets: Mapping[str, _Target]) -> dict[str, Factors]:
    """θ − θ_b of every tensor as factors of full rank; what is no target becomes a column."""
    changes = {}
    for name in base.layout.names:
        delta = child[name] - base[name].float()
        if bool(delta.any()):
            matrix = delta if name in targets else delta.reshape(-1, 1)
            changes[name] = Factors(matrix, torch.eye(matrix.shape[1]))
    return changes


def _fitted(
    changes: Mapping[str, Factors], targets: Mapping[str, _Target], rank: int, out: Path
) -> tuple[dict[str, Factors], AdapterReport]:
    """The changes of the targets, of ``rank`` or less each (0: exactly), and what they leave out."""
    kept: dict[str, Factors] = {}
    lost: dict[str, tuple[float, float]] = {}  # of each tensor: the share lost, and ‖ΔW‖²
    for name, change in changes.items():
        share = 1.0
        if name in targets:
            kept[name], share = truncate(change, min(rank or change.rank, *change.shape))
        elif not rank:
            raise EvoError(f"tensor {name!r} is in no module that peft can change; give a --rank")
        lost[name] = share if rank else 0.0, _energy(change)
    if not kept:
        raise EvoError("this individual changes no matrix of the base: there is nothing to export")
    total = sum(energy for _, energy in lost.values())
    discarded = sum(share * energy for share, energy in lost.values())
    worst = max(lost, key=lambda name: lost[name][0])
    return kept, AdapterReport(
        out,
        max(f.rank for f in kept.values()),
        len(kept),
        discarded / total if total > 0.0 else 0.0,
        (worst, lost[worst][0]),
    )


def _energy(factors: Factors) -> float:
    """‖B·A‖² in float64, without the product."""
    b, a = factors.b.double(), factors.a.double()
    return float(((b.T @ b) * (a @ a.T)).sum())


def _save(
    kept: Mapping[str, Factors], targets: Mapping[str, _Target], base: Path, folder: Path
) -> None:
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for name, factors in kept.items():
        target = targets[name]
        key = f"base_model.model.{target.path}"
        ranks[target.path] = factors.rank
        # PEFT keeps linear layers as (out, in); Conv1D and embeddings are the other way round.
        a, b = (factors.a, factors.b) if target.kind == "linear" else (factors.b.T, factors.a.T)
        names = ("lora_A.weight", "lora_B.weight")
        if target.kind == "embedding":
            names = ("lora_embedding_A", "lora_embedding_B")
        tensors |= {
            f"{key}.{n}": t.float().contiguous() for n, t in zip(names, (a, b), strict=True)
        }
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {path: rank for path, rank in sorted(ranks.items()) if rank != usual}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "inference_mode": True,
        "r": usual,
        "lora_alpha": usual,  # scaling 1: the factors are the change
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": _names(ranks.keys(), targets),
        "fan_in_fan_out": any(targets[name].kind == "conv1d" for name in kept),
        "lora_dropout": 0.0,
        "bias": "none",
        "modules_to_save": None,
        "use_rslora": False,
        "use_dora": False,
    }
    save_file(tensors, folder / ADAPTER_FILE, {"format": "pt"})
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _names(changed: Collection[str], targets: Mapping[str, _Target]) -> list[str]:
    """``changed`` as short as PEFT allows: last names where they mean these modules and no others."""
    short = {path.rpartition(".")[2] for path in changed}
    meant = {t.path for t in targets.values() if t.path.rpartition(".")[2] in short}
    return sorted(short if meant == set(changed) else changed)
