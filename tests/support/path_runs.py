"""Runs on two tiny Llamas, for algorithms that search data-flow paths."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel

import evo
from evo.cli.run import run_config

WORDS = [*"abcdefgh", "<pad>", "</s>"]


def save_model(path: Path, seed: int, layers: int = 3) -> None:
    inner = Tokenizer(WordLevel({t: i for i, t in enumerate(WORDS)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=16,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=9,
        pad_token_id=8,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>"
    ).save_pretrained(path)


def run(
    folder: Path,
    name: str,
    algorithm: str,
    evaluations: int = 40,
    pool: str = "{kind: local}",
) -> evo.lineage.Lineage:
    config = folder / f"{name}.yaml"
    config.write_text(
        "base: base\nfounders: [one, two]\n"
        "tasks:\n  - {name: t, files: texts, metric: bits_per_byte}\n"
        f"algorithm: {algorithm}\nbudget: {{evaluations: {evaluations}}}\npool: {pool}\n"
    )
    run_config(config, folder / name, ())
    return evo.lineage.open(folder / name)
