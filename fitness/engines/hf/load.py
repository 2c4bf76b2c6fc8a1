"""Models and tokenizers from checkpoint folders, and what they say of contexts and ends."""

import json
from pathlib import Path
from typing import Any

import torch

from fitness.engines.base import EngineError


def load_checkpoint(
    path: Path, dtype: torch.dtype | None, trust_remote_code: bool
) -> tuple[Any, Any]:
    """(model, tokenizer) of the folder ``path``; only safetensors, nothing from the network.

    Raises:
        EngineError: no checkpoint there that transformers can load, or tensors are missing.
    """
    import transformers

    models: Any = transformers.AutoModelForCausalLM

    if not (path / "config.json").is_file():
        raise EngineError(
            f"no model in {str(path)!r}: no config.json there. Give the folder of a checkpoint as "
            "save_pretrained writes it."
        )
    common = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()  # a run has its own live line
    try:
        model, info = models.from_pretrained(
            path,
            dtype=dtype or "auto",
            use_safetensors=True,
            output_loading_info=True,
            **common,
        )
        tokenizer = _tokenizer_class(path).from_pretrained(path, **common)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise EngineError(f"transformers cannot load {str(path)!r}: {error}") from error
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()
    if missing := sorted(info["missing_keys"]):
        raise EngineError(
            f"{str(path)!r} lacks {len(missing)} of its model's tensors, such as {missing[0]!r}; "
            "transformers would make them up at random. Use a complete checkpoint."
        )
    return model, tokenizer


def _tokenizer_class(path: Path) -> Any:
    """AutoTokenizer, unless the checkpoint says that its tokenizer.json is to be taken as it is.

    For some architectures (qwen2 among them) transformers 5 puts its own tokenizer class in place
    of that, and with it another splitting of the text.
    """
    import transformers

    config = path / "tokenizer_config.json"
    if config.is_file() and (path / "tokenizer.json").is_file():
        named = json.loads(config.read_text(encoding="utf-8")).get("tokenizer_class")
        if named in ("TokenizersBackend", "PreTrainedTokenizerFast"):
            return transformers.PreTrainedTokenizerFast
    return transformers.AutoTokenizer


def context_length(config: Any, tokenizer: Any) -> int:
    """Positions of the model; where it has no bound, the tokenizer's, else 2048."""
    length = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    return int(length) if 0 < length < 10**7 else 2048


def end_tokens(tokenizer: Any, model: Any) -> tuple[int, ...]:
    """EOS of the tokenizer, then those of the model's generation config."""
    more = model.generation_config.eos_token_id
    found = [tokenizer.eos_token_id, *(more if isinstance(more, list) else [more])]
    return tuple(dict.fromkeys(int(i) for i in found if i is not None))
