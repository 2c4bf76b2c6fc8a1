"""BRANCHING: which models can read trees of tokens (see `prefixes`), so that shared beginnings are read once."""

from collections.abc import Sequence
from typing import Any, Final

from fitness.engines.hf.rows.prefixes import ScoredRow, Tree, branching, chains

BRANCHING: Final = (
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "llama",
    "mistral",
    "olmo2",
    "qwen2",
    "qwen3",
)
"""The ``model_type`` of architectures whose tokens meet in attention alone, and whose attention takes positions
and a mask as given. Others carry a state from token to token (Mamba, RWKV), count positions themselves
(ALiBi, OPT) or were not looked at: they read ordinary rows.
"""

# The work of a token in a tree of n grows by n/(6·hidden): 4·n·hidden operations of attention to the
# 24·hidden² of an ordinary layer's matrices.
_LAYER = 6


def token_trees(rows: Sequence[ScoredRow], model: Any, *, most: int) -> list[Tree]:
    """``rows`` as trees of up to ``most`` tokens where ``model`` reads them with less work, else as chains."""
    longest = max((row.length for row in rows), default=0)
    if not takes_branches(model, longest):
        return chains(rows)
    width = _LAYER * int(model.config.get_text_config().hidden_size)
    return branching(rows, width=width, most=most)


def takes_branches(model: Any, longest: int) -> bool:
    """Whether ``model`` of transformers reads trees whose sequences have up to ``longest`` tokens.

    It must be one of BRANCHING, in transformers' own code and with its SDPA attention. A mask of ours takes
    the place of a sliding window's, so no sequence may be longer than the window.
    """
    config = model.config
    windows = (getattr(config, key, None) for key in ("sliding_window", "attention_chunk_size"))
    return (
        config.model_type in BRANCHING
        and type(model).__module__.startswith("transformers.models.")
        and config._attn_implementation == "sdpa"
        and not getattr(config, "use_bidirectional_attention", False)
        and all(longest <= window for window in windows if window is not None)
    )
