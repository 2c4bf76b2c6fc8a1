"""Shared by tests: taken out of test_prefixes."""

from typing import Any

import torch
import transformers
from tiny_lm import CHARACTERS, CONTEXT

SIZES = {
    "vocab_size": 4 + len(CHARACTERS),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def model_of(kind: str, **changed: Any) -> Any:
    config = transformers.AutoConfig.for_model(kind, **(SIZES | changed))
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()
