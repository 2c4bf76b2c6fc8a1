"""Two tiny random models of each architecture that data-flow paths know, and a path through both."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from operators.build.architectures import Architecture, architecture_of
from operators.build.materialize import Materializer
from operators.build.paths import LayerPath, PathBuilder
from operators.recipe import Founder, Route, Step
from operators.tensors.weights import Weights, weights_of

A, B = Founder("a", "0"), Founder("b", "0")
_COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # layers that do something, unlike freshly initialised ones
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = _COMMON | {"num_key_value_heads": 2}
_WINDOW = {"sliding_window": 8}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**_GROUPED),
    "mistral": lambda: transformers.MistralConfig(**_GROUPED, **_WINDOW),
    "qwen2": lambda: transformers.Qwen2Config(
        **_GROUPED, **_WINDOW, use_sliding_window=True, max_window_layers=2
    ),
    "qwen3": lambda: transformers.Qwen3Config(**_GROUPED, head_dim=8, tie_word_embeddings=True),
    "gemma2": lambda: transformers.Gemma2Config(**_GROUPED, **_WINDOW, head_dim=8),
    "gemma3_text": lambda: transformers.Gemma3TextConfig(
        **_GROUPED,
        **_WINDOW,
        head_dim=8,
        layer_types=["sliding_attention", "full_attention"] * 2,
    ),
    "gpt2": lambda: transformers.GPT2Config(
        n_embd=32,
        n_layer=4,
        n_head=4,
        vocab_size=64,
        n_positions=64,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**_COMMON),
    "olmo2": lambda: transformers.Olmo2Config(**_GROUPED),
}

# Repeats, another order, another model, scales, and different owners of embedding and head.
WINDING = Route(
    A,
    (
        Step(A, 0),
        Step(B, 1, 0.7),
        Step(A, 2),
        Step(B, 1, 1.3),
        Step(A, 3),
        Step(B, 3, 0.9),
        Step(A, 2, 1.6),
    ),
    B,
)


@dataclass(frozen=True)
class Pair:
    """Models a and b as transformers made them, and as weights."""

    config: Any
    models: dict[Founder, Any]
    weights: dict[Founder, Weights]
    architecture: Architecture

    def lay(self, route: Route) -> LayerPath:
        layout = self.weights[A].layout
        builder = PathBuilder(Materializer(layout, self.weights), self.weights, self.architecture)
        return builder.build(route)


def pair(name: str) -> Pair:
    config = CONFIGS[name]()
    architecture = architecture_of(config.to_dict())
    torch.manual_seed(0)
    models, weights = {}, {}
    for founder in (A, B):
        model: Any = transformers.AutoModelForCausalLM.from_config(config).eval()
        for parameter in model.parameters():  # biases and norms that do something, too
            if parameter.ndim == 1:
                parameter.data += 0.3 * torch.randn_like(parameter)
        tensors = dict(model.state_dict())
        if config.tie_word_embeddings:  # as in a checkpoint, which holds it once
            del tensors[architecture.output_head]
        models[founder], weights[founder] = model, weights_of(tensors)
    return Pair(config, models, weights, architecture)
