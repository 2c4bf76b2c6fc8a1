"""Tiny models with vocabularies of their own, and a run that aligns them."""

import torch
from tiny_lm import CONTEXT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from evo.config.schema import RunConfig

SPECIALS = ["<pad>", "</s>"]
WORDS = [*SPECIALS, *"abcdef"]


def build_tokenizer(tokens, eos="</s>"):
    """One token a character, or a word in angle brackets."""
    inner = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token=eos)


def save(path, tokens, *, kind="llama", tied=False, rows=None, seed=0, tokenizer=None, dtype=None):
    """A random model with the given tokens in order of id, and a tokenizer of them."""
    torch.manual_seed(seed)
    common = {
        "vocab_size": rows or len(tokens),
        "tie_word_embeddings": tied,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": tokens.index("</s>") if "</s>" in tokens else None,
        "pad_token_id": None,
    }
    if kind == "gpt2":
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": CONTEXT}
        model = GPT2LMHeadModel(GPT2Config(**sizes, **common))
    else:
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 2, "max_position_embeddings": CONTEXT}
        model = LlamaForCausalLM(LlamaConfig(**sizes, **heads, **common))
    model.to(dtype or torch.float32).save_pretrained(path)
    (tokenizer or build_tokenizer(tokens)).save_pretrained(path)
    return path


def union_config(folder, **founders):
    (folder / "task.dev.jsonl").write_text('{"prompt": "abc", "answer": "d"}\n')
    task = {"name": "t", "files": folder / "task"}
    return RunConfig.model_validate(
        {
            "base": folder / "base",
            "founders": founders,
            "vocabulary": "union",
            "tasks": [task],
            "pool": {"kind": "local"},
            "algorithm": {"name": "recipe_search", "population": 4},
            "budget": {"evaluations": 2},
        }
    )
