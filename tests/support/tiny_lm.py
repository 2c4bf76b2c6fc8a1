"""Tiny random language models with one token a character: models, tokenizers, checkpoints, engines."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from fitness.engines.hf.engine import HFEngine
from operators.tensors.weights import Weights, weights_of

CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz =+<>.,?!\n"


CONTEXT = 48


KINDS = ("llama", "gpt2", "qwen2")


def build_tokenizer(*, bos: bool = False, chat: bool = False) -> PreTrainedTokenizerFast:
    """One token a character; ``bos`` puts <s> before every text."""
    vocabulary = {t: i for i, t in enumerate(["<pad>", "<s>", "</s>", "<unk>", *CHARACTERS])}
    inner = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = Fuse()
    if bos:
        inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    if chat:
        tokenizer.chat_template = (
            "{% for m in messages %}<{{ m['content'] }}>{% endfor %}"
            "{% if add_generation_prompt %}{{ '\n' }}{% endif %}"
        )
    return tokenizer


def build_model(kind: str, *, tied: bool | None = None, seed: int = 0) -> Any:
    """A random model with vocabulary and context of the tests; GPT-2 is tied, the others not."""
    torch.manual_seed(seed)
    common = {
        "vocab_size": 4 + len(CHARACTERS),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": kind == "gpt2" if tied is None else tied,
        "initializer_range": 0.3,
    }
    if kind == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=CONTEXT, **common)
        )
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
    }
    if kind == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**sizes, **common))
    return LlamaForCausalLM(LlamaConfig(**sizes, **common))


def save(path: Path, model: Any, *, bos: bool = False, chat: bool = False) -> Path:
    """The checkpoint folder ``path`` with ``model`` and the tests' tokenizer."""
    model.save_pretrained(path)
    build_tokenizer(bos=bos, chat=chat).save_pretrained(path)
    return path


def build_engine(path: Path, kind: str = "llama", **options: Any) -> HFEngine:
    """An engine on a random model of ``kind``, saved in ``path``."""
    tokenizer = {k: options.pop(k) for k in ("bos", "chat") if k in options}
    return HFEngine(save(path, build_model(kind), **tokenizer), **options)


def copy_weights(model: Any) -> Weights:
    """The model's state as Weights in memory of their own, tied tensors once."""
    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            tensors[name] = tensor.clone()
    return weights_of(tensors)


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
    """A random model of any kind that transformers knows, in the sizes of the tests."""
    config = transformers.AutoConfig.for_model(kind, **(SIZES | changed))
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()
