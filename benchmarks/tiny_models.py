"""Llamas of any size, made on the spot: a base and fine-tunes of it, all random; and questions for them."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHOICES, PROMPT_WORDS = 4, 24


def write_models(
    folder: Path, founders: Sequence[str], *, hidden: int, layers: int, vocabulary: int
) -> int:
    """``base`` and founders in bfloat16; the number of parameters of each. A word is a token."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=5 * hidden // 2,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    words = {f"w{i}": i for i in range(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w0", pad_token="w0")
    base = LlamaForCausalLM(config)
    for name in ("base", *founders):
        model = LlamaForCausalLM(config)
        model.load_state_dict(base.state_dict())
        if name != "base":
            for parameter in model.parameters():
                parameter.data.add_(0.02 * torch.randn_like(parameter))
        model.to(torch.bfloat16).save_pretrained(folder / name)
        fast.save_pretrained(folder / name)
    return int(base.num_parameters())


def write_questions(path: Path, count: int, vocabulary: int) -> None:
    """JSON Lines of ``count`` questions, each with 4 choices of one token."""
    chance = random.Random(0)
    rows = []
    for _ in range(count):
        prompt = " ".join(f"w{chance.randrange(1, vocabulary)}" for _ in range(PROMPT_WORDS))
        choices = [f" w{i}" for i in chance.sample(range(1, vocabulary), CHOICES)]
        rows.append({"prompt": prompt, "choices": choices, "label": chance.randrange(CHOICES)})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
