"""LoRA adapters of random models, and of a 6x6 layer for which the best merge is known."""

import json
from pathlib import Path

import peft
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from evo.config.schema import RunConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_adapter(base: Path, out: Path, seed: int, **settings) -> Path:
    """What peft saves after some training: both factors away from where they start."""
    torch.manual_seed(seed)
    settings = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"]} | settings
    model = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        peft.LoraConfig(task_type="CAUSAL_LM", **settings),
    )
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(out)
    return out


def factors_of(seed, rank):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, rank, generator=generator), torch.randn(rank, 6, generator=generator)


def square_config(folder: Path, **changes) -> RunConfig:
    """A zero base and three adapters of ranks 1, 2 and 2; the target is the sum of the first two."""
    folder.mkdir(parents=True)
    save_file({"layer.weight": torch.zeros(6, 6)}, folder / "base.safetensors")
    for seed, rank in ((1, 1), (2, 2), (3, 2)):
        path = folder / f"f{seed}"
        path.mkdir()
        b, a = factors_of(seed, rank)
        names = ("base_model.model.layer.lora_B.weight", "base_model.model.layer.lora_A.weight")
        save_file(dict(zip(names, (b, a), strict=True)), path / WEIGHTS)
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": ["layer"]}
        (path / CONFIG).write_text(json.dumps(config))
    data = {
        "base": folder / "base.safetensors",
        "founders": [folder / f"f{seed}" for seed in (1, 2, 3)],
        "engine": {"kind": "module", "build": "lora_models:build_square"},
        "tasks": [
            {
                "name": "square",
                "metric": "lora_models:closeness",
                "data": {s: s for s in ("dev", "select", "test")},
            }
        ],
        "pool": {"kind": "local"},
        "budget": {"evaluations": 150},
    }
    return RunConfig.model_validate({**data, **changes})


class Square(torch.nn.Module):
    """One 6x6 layer, and no training: how near its weight is to a target is the score."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 6, bias=False)


def build_square():
    return Square()


def target(split):
    both = [factors_of(seed, rank) for seed, rank in ((1, 1), (2, 2))]
    shift = {"dev": 0.0, "select": 0.01, "test": 0.02}[split]
    return sum(b @ a for b, a in both) + shift


def closeness(module, split):
    return torch.exp(-((module.layer.weight - target(split)) ** 2)).mean(1).tolist()
