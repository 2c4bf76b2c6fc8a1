"""Writes aligned checkpoints: links to what stays, and new tables, config and tokenizer."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from cluster.founders.checkpoints import INDEX_FILE, tensors_by_file
from evo.errors import EvoError
from evo.vocabulary.files import (
    OTHER_STATES,
    STATE_FILE,
    TOKENIZER_CONFIG,
    TokenFiles,
    json_of,
)

# transformers reads files in order of name and keeps the last tensor of a name: ours must be last.
TABLES_FILE = "vocabulary.safetensors"
KINDS = ("embedding", "head", "bias")
# These say the same as the tokenizer.json, and would contradict an extended one.
_REPLACED_BY_STATE = (*OTHER_STATES, "merges.txt", "added_tokens.json")
_BESIDE_STATE = (
    *(TOKENIZER_CONFIG, "special_tokens_map.json"),
    *("chat_template.jinja", "chat_template.json"),
)
_COPIED_ENDINGS = (".json", ".py", ".txt", ".jinja", ".model")
_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


@dataclass(frozen=True, slots=True)
class TargetVocabulary:
    """The vocabulary to align to.

    Attributes:
        folder: whose tokenizer it is, or extends.
        keeper: the model whose padding rows are kept, if that folder is one of the models.
        extended: it has tokens that the folder's files lack.
    """

    state: Mapping[str, Any]
    tokens: Mapping[str, int]
    folder: Path
    keeper: str | None
    extended: bool


def read_tables(checkpoint: TokenFiles, untie: bool) -> dict[str, Tensor]:
    """The tables by kind, memory-mapped. To ``untie``, a model without a head takes its embedding.

    Raises:
        EvoError: a table holds NaN, or the config ties the head to the embedding, but the files hold
            another one.
    """
    kinds = {getattr(checkpoint, k): k for k in KINDS if getattr(checkpoint, k)}
    tables: dict[str, Tensor] = {}
    for file, names in tensors_by_file(checkpoint.path).items():
        with safe_open(file, framework="pt") as opened:
            tables |= {kinds[n]: opened.get_tensor(n) for n in names if n in kinds}
    for kind, table in tables.items():
        # Models that lack a token take the mean of these rows: a NaN would show up in theirs.
        if not bool(torch.isfinite(table).all()):
            raise EvoError(
                f"{checkpoint.path}: tensor {getattr(checkpoint, kind)!r} holds NaN or infinite values"
            )
    twice = checkpoint.tied and "head" in tables
    if twice and not torch.equal(tables["embedding"], tables["head"]):
        raise EvoError(
            f"{checkpoint.path}: config.json says tie_word_embeddings, but {checkpoint.head!r} is "
            f"not {checkpoint.embedding!r}. Set tie_word_embeddings to false there, or delete the head"
        )
    if untie:
        tables.setdefault("head", tables["embedding"])
    return tables


def write_folder(
    checkpoint: TokenFiles,
    tables: Mapping[str, Tensor],
    target: TargetVocabulary,
    untie: bool,
    out: Path,
) -> None:
    """Write folder ``out``: ``checkpoint`` with ``tables`` by tensor name and the tokenizer of ``target``.

    Ids of special tokens in config.json and generation_config.json follow their strings.
    """
    out.mkdir()
    placed: dict[str, str] = {}
    for number, (file, names) in enumerate(tensors_by_file(checkpoint.path).items(), start=1):
        link = f"model-{number:05d}.safetensors"
        kept = [name for name in names if name not in tables]
        if kept:
            (out / link).symlink_to(file.resolve())
            placed |= dict.fromkeys(kept, link)
    contiguous = {name: table.contiguous() for name, table in tables.items()}
    save_file(contiguous, out / TABLES_FILE, {"format": "pt"})
    placed |= dict.fromkeys(tables, TABLES_FILE)
    _write_json(out / INDEX_FILE, {"metadata": {}, "weight_map": dict(sorted(placed.items()))})

    if checkpoint.path.is_dir():
        skipped = (INDEX_FILE, STATE_FILE, *_REPLACED_BY_STATE, *_BESIDE_STATE)
        for file in sorted(checkpoint.path.iterdir()):
            if file.is_file() and file.suffix in _COPIED_ENDINGS and file.name not in skipped:
                shutil.copyfile(file, out / file.name)
        rows = next(iter(tables.values())).shape[0]
        for name in ("config.json", "generation_config.json"):
            if (out / name).is_file():
                settings = json_of(out / name)
                _rename_ids(settings, checkpoint.tokens, target.tokens)
                if name == "config.json":
                    _resize(settings, rows, untie)
                _write_json(out / name, settings)
    _write_tokenizer(target, out)


def _write_tokenizer(target: TargetVocabulary, out: Path) -> None:
    kept = _BESIDE_STATE if target.extended else (*_BESIDE_STATE, *_REPLACED_BY_STATE)
    for name in kept:
        if (target.folder / name).is_file():
            shutil.copyfile(target.folder / name, out / name)
    if target.extended or not (target.folder / STATE_FILE).is_file():
        text = json.dumps(target.state, ensure_ascii=False)  # indented, it takes seconds
        (out / STATE_FILE).write_text(text, encoding="utf-8")
    else:
        shutil.copyfile(target.folder / STATE_FILE, out / STATE_FILE)


def _rename_ids(
    settings: dict[str, Any], own: Mapping[str, int], target: Mapping[str, int]
) -> None:
    """Ids of special tokens in a config, by string; a token that is gone leaves null."""
    strings = {i: token for token, i in own.items()}

    def renamed(token_id: int | None) -> int | None:
        # An id without a string is that of a padding row, or of nothing at all: it stays.
        token = strings.get(token_id) if token_id is not None else None
        return token_id if token is None else target.get(token)

    for part in (settings, settings.get("text_config") or {}):
        for key in _TOKEN_IDS:
            value = part.get(key)
            if isinstance(value, list):
                part[key] = [i for v in value if (i := renamed(v)) is not None]
            elif isinstance(value, int):
                part[key] = renamed(value)


def _resize(config: dict[str, Any], rows: int, untie: bool) -> None:
    inner = config.get("text_config") or {}
    for part in (config, inner):
        if "vocab_size" in part:
            part["vocab_size"] = rows
        if untie and (part is config or "tie_word_embeddings" in part):
            part["tie_word_embeddings"] = False


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
