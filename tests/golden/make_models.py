#!/usr/bin/env python3
"""Rebuild the TINY base + 4 experts bit-exactly from seeds (numpy PCG64 only).

tensors(model) -> {name: float32 ndarray};  model in base,e1,e2,e3,e4.
Every tensor has its own generator seeded by (SEED, model id, crc32(name)), so any
subset can be rebuilt alone.  All arithmetic is elementwise float64 (no BLAS, no
reductions), then one cast to float32.

  python make_models.py --check golden.json      verify sha256 of every input tensor
  python make_models.py --write-hf DIR           write HF Llama directories DIR/base, DIR/e1 ...
"""

import argparse
import hashlib
import json
import os
import sys
import zlib

import numpy as np

SEED = 20260
HIDDEN, LAYERS, VOCAB, INTER, HEADS, KV = 64, 4, 128, 1152, 4, 2
MODELS = ["base", "e1", "e2", "e3", "e4"]
DELTA_STD = 0.02


def shapes():
    kv = HIDDEN // HEADS * KV
    s = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        s[p + "input_layernorm.weight"] = (HIDDEN,)
        s[p + "self_attn.q_proj.weight"] = (HIDDEN, HIDDEN)
        s[p + "self_attn.k_proj.weight"] = (kv, HIDDEN)
        s[p + "self_attn.v_proj.weight"] = (kv, HIDDEN)
        s[p + "self_attn.o_proj.weight"] = (HIDDEN, HIDDEN)
        s[p + "post_attention_layernorm.weight"] = (HIDDEN,)
        s[p + "mlp.gate_proj.weight"] = (INTER, HIDDEN)
        s[p + "mlp.up_proj.weight"] = (INTER, HIDDEN)
        s[p + "mlp.down_proj.weight"] = (HIDDEN, INTER)
    s["model.norm.weight"] = (HIDDEN,)
    s["lm_head.weight"] = (VOCAB, HIDDEN)
    return s


def _rng(model_id, name):
    return np.random.Generator(
        np.random.PCG64(np.random.SeedSequence([SEED, model_id, zlib.crc32(name.encode())]))
    )


def _unit(rng, shape):
    """Structured noise of unit variance: 0.5 rank-4 + 0.5 iid (variances), row scales in [0.5,1.5]."""
    iid = rng.standard_normal(shape)
    if len(shape) == 1:
        return iid
    low = np.zeros(shape)
    for _ in range(4):
        u = rng.standard_normal(shape[0])
        v = rng.standard_normal(shape[1])
        low += u[:, None] * v[None, :]
    low *= 0.5
    row = rng.uniform(0.5, 1.5, size=shape[0])[:, None]
    return (np.sqrt(0.5) * low + np.sqrt(0.5) * iid) * (row / np.sqrt(13.0 / 12.0))


def _base64(name):
    shape = shapes()[name]
    x = _rng(0, name).standard_normal(shape)
    return 1.0 + 0.1 * x if len(shape) == 1 else 0.1 * x


def tensor(model, name):
    """delta_i = 0.02 * (sqrt(.3) * shared + sqrt(.7) * own_i)"""
    x = _base64(name)
    if model != "base":
        i = MODELS.index(model)
        shape = shapes()[name]
        shared, own = _unit(_rng(100, name), shape), _unit(_rng(i, name), shape)
        # expert is built on the float32 base, so that (expert - base) is a plain fp32 subtraction
        x = x.astype(np.float32).astype(np.float64) + DELTA_STD * (
            np.sqrt(0.3) * shared + np.sqrt(0.7) * own
        )
    return x.astype(np.float32)


def tensors(model, names=None):
    return {n: tensor(model, n) for n in (names or shapes())}


def sha(a):
    return hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()[:16]


def write_hf(out):
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers import models as tm

    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3}
    for c in range(32, 127):
        vocab.setdefault(chr(c), len(vocab))
    vocab["\n"] = len(vocab)
    while len(vocab) < VOCAB:
        vocab[f"<extra{len(vocab)}>"] = len(vocab)
    tok = Tokenizer(tm.WordLevel(vocab, unk_token="<unk>"))
    from tokenizers import Regex

    tok.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tok.decoder = decoders.Fuse()
    for m in MODELS:
        d = os.path.join(out, m)
        os.makedirs(d, exist_ok=True)
        save_file(tensors(m), os.path.join(d, "model.safetensors"), metadata={"format": "pt"})
        json.dump(
            {
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "hidden_size": HIDDEN,
                "intermediate_size": INTER,
                "num_hidden_layers": LAYERS,
                "num_attention_heads": HEADS,
                "num_key_value_heads": KV,
                "head_dim": HIDDEN // HEADS,
                "vocab_size": VOCAB,
                "max_position_embeddings": 512,
                "rms_norm_eps": 1e-5,
                "rope_theta": 10000.0,
                "hidden_act": "silu",
                "tie_word_embeddings": False,
                "torch_dtype": "float32",
                "bos_token_id": 1,
                "eos_token_id": 2,
                "pad_token_id": 3,
                "attention_bias": False,
                "mlp_bias": False,
                "initializer_range": 0.02,
                "use_cache": True,
            },
            open(os.path.join(d, "config.json"), "w"),
            indent=1,
        )
        tok.save(os.path.join(d, "tokenizer.json"))
        json.dump(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "unk_token": "<unk>",
                "pad_token": "<pad>",
                "model_max_length": 512,
                "clean_up_tokenization_spaces": False,
            },
            open(os.path.join(d, "tokenizer_config.json"), "w"),
            indent=1,
        )


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--check")
    ap.add_argument("--write-hf")
    a = ap.parse_args()
    if a.write_hf:
        write_hf(a.write_hf)
    if a.check:
        want = json.load(open(a.check))["input_sha256_16"]
        bad = [(m, n) for m in MODELS for n, h in want[m].items() if sha(tensor(m, n)) != h]
        print("bad:", bad)
        sys.exit(bool(bad))
    n = sum(int(np.prod(s)) for s in shapes().values())
    print("params", n)
