"""Builders of tiny real checkpoints for the engine's tests, and a check that they load."""

from pathlib import Path

import pytest
import torch
from tiny_lm import KINDS, build_engine

# Tiny models run slower on several threads, above all beside other processes.
torch.set_num_threads(1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_built_checkpoint_loads_with_one_token_a_character(kind: str, tmp_path: Path) -> None:
    engine = build_engine(tmp_path, kind)
    text = "ab 1+2=3\n"
    ids = engine.tokenizer(text)["input_ids"]
    assert len(ids) == len(text)
    assert engine.tokenizer.decode(ids) == text
    assert (engine.model.get_input_embeddings().weight is engine.model.lm_head.weight) == (
        kind == "gpt2"
    )
