"""Adapters of a matrix so wide that the bits of their merge depend on the number of BLAS threads."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from evo.config.schema import RunConfig

SIZE, RANK = 2048, 32


def build() -> torch.nn.Module:
    return torch.nn.ModuleDict({"layer": torch.nn.Linear(SIZE, SIZE, bias=False)})


def trace(module: torch.nn.Module, split: str) -> list[float]:
    return module["layer"].weight.diagonal()[:4].tolist()


def wide_config(folder: Path) -> RunConfig:
    """Merges of two adapters of rank 32, truncated to a smaller rank, on one thread."""
    folder.mkdir(parents=True)
    save_file({"layer.weight": torch.zeros(SIZE, SIZE)}, folder / "base.safetensors")
    for seed in (1, 2):
        path = folder / f"f{seed}"
        path.mkdir()
        generator = torch.Generator().manual_seed(seed)
        names = ("base_model.model.layer.lora_B.weight", "base_model.model.layer.lora_A.weight")
        shapes = ((SIZE, RANK), (RANK, SIZE))
        tensors = {
            name: torch.randn(shape, generator=generator)
            for name, shape in zip(names, shapes, strict=True)
        }
        save_file(tensors, path / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": ["layer"]}
        (path / "adapter_config.json").write_text(json.dumps(config))
    return RunConfig.model_validate(
        {
            "base": folder / "base.safetensors",
            "founders": [folder / "f1", folder / "f2"],
            "engine": {"kind": "module", "build": "wide_adapters:build", "threads": 1},
            "tasks": [
                {
                    "name": "wide",
                    "metric": "wide_adapters:trace",
                    "data": {s: s for s in ("dev", "select", "test")},
                }
            ],
            "algorithm": {"name": "recipe_search", "methods": ["lora_concat"]},
            "pool": {"kind": "local"},
            "budget": {"evaluations": 5},
            "baselines": {},
        }
    )
