"""What a checkpoint's files say of its tokens and its head, and whether models agree on them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from cluster.founders.adapters import is_adapter
from cluster.founders.checkpoints import tensors_by_file
from evo.errors import EvoError
from evo.vocabulary.tokens import tokens_of

STATE_FILE = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
EMBEDDINGS = (
    *("embed_tokens.weight", "wte.weight", "embed_in.weight"),
    *("word_embeddings.weight", "embeddings.weight"),
)
HEADS = ("lm_head.weight", "embed_out.weight")
HEAD_BIASES = ("lm_head.bias",)
# Tokenizers in forms that transformers converts.
OTHER_STATES = ("tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class TokenFiles:
    """A model as far as alignment is concerned.

    Attributes:
        embedding, head, bias: names of the tables that it has; a bias is the head's.
        shapes: of the tables, by name.
        tied: the head is the embedding, whether or not the files hold it twice.
        state: what its tokenizer.json holds; None without a tokenizer.
        tokens: ids by string, of that tokenizer.
    """

    path: Path
    embedding: str
    head: str | None
    bias: str | None
    shapes: Mapping[str, tuple[int, ...]]
    tied: bool
    state: Mapping[str, Any] | None
    tokens: Mapping[str, int]

    @property
    def rows(self) -> int:
        return self.shapes[self.embedding][0]

    @property
    def heads(self) -> tuple[bool, bool]:
        """Equal for models whose heads fit together."""
        return self.tied, self.head is None


def read_checkpoint(path: Path, base: TokenFiles | None = None) -> TokenFiles | None:
    """Read names, shapes and tokenizer, no tensor. ``base`` saves reading its tokenizer again.

    None for adapters, and for what has no embedding by a known name.

    Raises:
        EvoError: two tensors could be the embedding, or the tokenizer can't be read.
        CheckpointError: the checkpoint can't be read.
    """
    if is_adapter(path):
        return None
    files = tensors_by_file(path)
    names = [name for names in files.values() for name in names]
    embedding = _only(names, EMBEDDINGS, path)
    head, bias = _only(names, HEADS, path), _only(names, HEAD_BIASES, path)
    if embedding is None:
        return None
    shapes: dict[str, tuple[int, ...]] = {}
    for file, inside in files.items():
        with safe_open(file, framework="pt") as opened:
            for name in {embedding, head, bias} & set(inside):
                shapes[str(name)] = tuple(opened.get_slice(name).get_shape())
    for name, shape in shapes.items():
        if shape[0] != shapes[embedding][0]:
            raise EvoError(
                f"{path}: {embedding!r} has {shapes[embedding][0]} rows, but {name!r} has {shape[0]}"
            )
    config = json_of(path / "config.json")
    said = {**config, **(config.get("text_config") or {})}.get("tie_word_embeddings", False)
    state = tokenizer_state(path, base)
    tokens = {} if state is None else tokens_of(state)
    tied = head is None or bool(said)
    return TokenFiles(path, embedding, head, bias, shapes, tied, state, tokens)


def _only(names: Sequence[str], known: Sequence[str], path: Path) -> str | None:
    found = [n for n in names if any(n == k or n.endswith(f".{k}") for k in known)]
    if len(found) > 1:
        raise EvoError(f"{path}: which is the table of tokens: {' or '.join(map(repr, found))}?")
    return found[0] if found else None


def tokenizer_state(path: Path, base: TokenFiles | None = None) -> Mapping[str, Any] | None:
    """What the tokenizer.json in folder ``path`` holds, or would hold if there were one.

    None where there are no tokenizer files.

    Raises:
        EvoError: the tokenizer can't be read.
    """
    if not _has_tokenizer(path):
        return None
    if (path / STATE_FILE).is_file():
        known = base is not None and _same_bytes(path / STATE_FILE, base.path / STATE_FILE)
        state = base.state if base is not None and known else json_of(path / STATE_FILE)
        try:
            if state is not None and not _named_elsewhere(path) - tokens_of(state).keys():
                return state
        except (KeyError, TypeError, AttributeError) as error:
            raise EvoError(
                f"{path / STATE_FILE}: not a tokenizer's files ({error!r}). Copy them again from "
                "where the model came from"
            ) from error
    import transformers

    try:
        # Said, not left open: on a terminal, transformers would ask whether to run a model's code.
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
        loaded: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise EvoError(
            f"{path}: its tokenizer can't be read ({error}). Load it with transformers and save it "
            f"there with save_pretrained, which writes {STATE_FILE}"
        ) from error
    return loaded


def _has_tokenizer(path: Path) -> bool:
    return any((path / file).is_file() for file in (STATE_FILE, *OTHER_STATES))


def _same_bytes(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


def _named_elsewhere(path: Path) -> set[str]:
    """Tokens that transformers adds to those of tokenizer.json when it loads a tokenizer."""
    listed = json_of(path / TOKENIZER_CONFIG).get("added_tokens_decoder", {}).values()
    more = {_string(token) for token in listed}
    return {*json_of(path / "added_tokens.json"), *more, *roles(path).values()}


def roles(path: Path) -> dict[str, str]:
    """The special tokens of a tokenizer by their role: ``{"eos_token": "</s>", ...}``."""
    config = json_of(path / TOKENIZER_CONFIG)
    return {role: _string(config[role]) for role in _ROLES if config.get(role)}


def _string(token: Any) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token)


def json_of(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file.

    Raises:
        EvoError: it holds something else.
    """
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EvoError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise EvoError(f"{path}: expected an object, got {type(data).__name__}")
    return data


def check_agreement(base: Path, models: Mapping[str, Path], *, key: str = "vocabulary") -> None:
    """Refuse models whose tokens or heads are not the base's; ``key`` is what aligns them.

    A model without tokenizer files counts as having the base's tokens. Adapters are not looked at,
    and nothing is where ``base`` has no embedding or no tokenizer.

    Raises:
        EvoError: names both files, what differs, and the key that aligns them.
        CheckpointError: a checkpoint can't be read.
    """
    ours = read_checkpoint(base) if _has_tokenizer(base) else None
    if ours is None:
        return
    for path in models.values():
        same = path.resolve() == base.resolve()
        theirs = None if same else read_checkpoint(path, ours)
        if theirs is None:
            continue
        if theirs.state is None:
            theirs = with_tokens_of(ours, theirs)
        if problem := _difference(ours, theirs):
            raise EvoError(
                f"{problem} Set '{key}: base' in the config to align tokens by string to the "
                f"base's tokenizer, or '{key}: union' to keep every model's tokens; both untie "
                "the heads where some are tied and some are not"
            )


def with_tokens_of(ours: TokenFiles, theirs: TokenFiles) -> TokenFiles:
    """``theirs``, which has no tokenizer, with the tokenizer of ``ours``.

    Raises:
        EvoError: their sizes differ, so that can't be its tokenizer.
    """
    if ours.rows != theirs.rows:
        raise EvoError(
            f"{theirs.path}: its embedding has {theirs.rows} rows and that of {ours.path} "
            f"{ours.rows}, and it comes without a tokenizer, so which row is which token is not "
            f"known. Put its tokenizer files ({STATE_FILE}, {TOKENIZER_CONFIG}) beside it"
        )
    return replace(theirs, state=ours.state, tokens=ours.tokens)


def _difference(ours: TokenFiles, theirs: TokenFiles) -> str:
    """What hinders merging these two as they are; empty where nothing does."""
    sizes = f"their embeddings have {theirs.rows} and {ours.rows} rows"
    if ours.tokens != theirs.tokens:
        moved = [t for t, i in theirs.tokens.items() if ours.tokens.get(t, i) != i]
        more = theirs.tokens.keys() - ours.tokens.keys()
        fewer = ours.tokens.keys() - theirs.tokens.keys()
        counts = [
            f"{len(tokens)} {what} ({some(sorted(tokens))})"
            for tokens, what in (
                (moved, "have another id"),
                (more, "are only in the first"),
                (fewer, "are only in the second"),
            )
            if tokens
        ]
        return (
            f"{theirs.path / STATE_FILE} and {ours.path / STATE_FILE} are different vocabularies: "
            f"of their tokens {', '.join(counts)}; {sizes}."
        )
    if ours.rows != theirs.rows:
        return f"{theirs.path} and {ours.path} have the same tokens, but {sizes}."
    if ours.heads != theirs.heads:
        one, other = (
            f"{c.path} ({'tied' if c.tied else 'untied'}, {c.head or 'no head'} in its files)"
            for c in (theirs, ours)
        )
        return f"{one} and {other} differ in whether the head is tied to the embedding; {sizes}."
    return ""


def some(tokens: Sequence[str]) -> str:
    """The first few, quoted."""
    return ", ".join(map(repr, tokens[:_SHOWN])) + (", ..." if len(tokens) > _SHOWN else "")
