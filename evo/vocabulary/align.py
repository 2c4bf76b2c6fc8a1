"""Checkpoints with different vocabularies, or heads tied in some and not in others, made to fit.

An aligned checkpoint is a folder in which all tensors but the tables of tokens are links to the original
files: aligning costs the tables' size on disk and no more. Plain transformers loads it, and it is
good as long as the original is there.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer

from cluster.founders.adapters import is_adapter
from evo.errors import EvoError
from evo.files import whole_folder
from evo.vocabulary.files import (
    EMBEDDINGS,
    STATE_FILE,
    TokenFiles,
    read_checkpoint,
    roles,
    some,
    tokenizer_state,
    with_tokens_of,
)
from evo.vocabulary.tokens import (
    TokenPlan,
    Vocabulary,
    aligned_table,
    fill_rows,
    plan_rows,
    tokens_of,
    union_state,
)
from evo.vocabulary.write import KINDS, TargetVocabulary, read_tables, write_folder

Mode = Literal["union", "base"]


@dataclass(frozen=True, slots=True)
class Aligned:
    """Checkpoints of one vocabulary. A folder that needed no change is the original one.

    Attributes:
        base: the base's folder.
        models: the folder of each model, in the order given.
        changed: names of the folders that were written.
        notes: what was added, dropped or decided, a line each.
    """

    base: Path
    models: Mapping[str, Path]
    changed: tuple[str, ...]
    notes: tuple[str, ...]


def align(models: Mapping[str, Path], base: Path, mode: Mode | Path, out: Path) -> Aligned:
    """Give ``models`` and ``base`` one vocabulary: the union, the base's, or that in a folder.

    The rules for rows are those of :mod:`evo.vocabulary.tokens`. Where some heads are tied and some are not,
    all are untied. A model without tokenizer files counts as having the base's tokens, if the sizes
    agree. Adapters pass unchanged: the base's tokens keep their ids. Aligned folders are
    ``out/NAME``, and ``out/_base`` for a base that is none of ``models``. ``out`` appears complete or
    not at all, and not where nothing had to change.

    Raises:
        EvoError: a model has no embedding by a known name or no tokenizer though its size is its
            own; hidden sizes differ; a tokenizer can't be read or extended; ``out`` exists.
        CheckpointError: a checkpoint can't be read.
    """
    if out.exists():
        raise EvoError(f"{out}: exists already; aligned checkpoints need a new folder")
    read, base_name = _read_all(models, base)
    target = _target(read, base_name, mode)
    vocabularies = {name: Vocabulary(c.tokens, c.rows) for name, c in read.items()}
    rows = read[target.keeper].rows if target.keeper else 0
    plan = plan_rows(vocabularies, target.tokens, rows=rows, keeper=target.keeper)
    untie = len({c.heads for c in read.values()}) > 1
    changed = [n for n, c in read.items() if (untie and c.tied) or _moves(plan, c, n, target)]
    if changed:
        _write_all(read, base_name, changed, plan, target, untie, out)
    names = {c.path.resolve(): name for name, c in read.items()}
    aligned = {
        resolved: out / name if name in changed else read[name].path
        for resolved, name in names.items()
    }
    return Aligned(
        aligned[base.resolve()],
        {name: aligned.get(path.resolve(), path) for name, path in models.items()},
        tuple(changed),
        _notes(read, base_name, target, plan, untie),
    )


def aligned_paths(
    models: Mapping[str, Path], base: Path, out: Path, changed: Collection[str]
) -> tuple[Path, dict[str, Path]]:
    """Where `align` with this ``out`` has left the base and the models; ``changed`` are its folders."""

    def at(name: str, path: Path) -> Path:
        return out / name if name in changed else path

    base_name = next((n for n, p in models.items() if p.resolve() == base.resolve()), "_base")
    return at(base_name, base), {name: at(name, path) for name, path in models.items()}


def _read_all(models: Mapping[str, Path], base: Path) -> tuple[dict[str, TokenFiles], str]:
    """Every model once, the base first, and the base's name."""
    ours = read_checkpoint(base)
    if ours is None or ours.state is None:
        raise EvoError(
            f"{base}: vocabularies can't be aligned to it: that takes a folder with an embedding "
            f"({', '.join(EMBEDDINGS)}) and a tokenizer ({STATE_FILE})"
        )
    at = base.resolve()
    base_name = next((n for n, p in models.items() if p.resolve() == at), "_base")
    read, seen = {base_name: ours}, {at}
    for name, path in models.items():
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        theirs = read_checkpoint(path, ours)
        if theirs is None:
            if is_adapter(path):
                continue
            raise EvoError(f"{path}: has no embedding ({', '.join(EMBEDDINGS)}) to align")
        mine, other = ours.shapes[ours.embedding], theirs.shapes[theirs.embedding]
        if mine[1:] != other[1:]:
            raise EvoError(
                f"{path}: its embedding is {list(other)}, and that of {base} {list(mine)}. "
                "Vocabularies may differ, but not the architecture"
            )
        read[name] = with_tokens_of(ours, theirs) if theirs.state is None else theirs
    return read, base_name


def _target(read: Mapping[str, TokenFiles], base_name: str, mode: Mode | Path) -> TargetVocabulary:
    ours = read[base_name]
    state = ours.state or {}
    if isinstance(mode, Path):
        found = tokenizer_state(mode, ours)
        if found is None:
            raise EvoError(f"{mode}: no tokenizer there ({STATE_FILE})")
        keeper = next((n for n, c in read.items() if c.path.resolve() == mode.resolve()), None)
        return TargetVocabulary(found, tokens_of(found), mode, keeper, False)
    more = [c for c in read.values() if mode == "union" and c.tokens.keys() - ours.tokens.keys()]
    if not more:
        return TargetVocabulary(state, ours.tokens, ours.path, base_name, False)
    try:
        union = union_state(state, [c.state for c in more if c.state is not None])
        known = Tokenizer.from_str(json.dumps(union)).get_vocab()
    except Exception as error:  # tokenizers raises bare Exceptions
        raise EvoError(
            f"{ours.path / STATE_FILE}: can't take in the tokens of "
            f"{', '.join(str(c.path) for c in more)} ({error}). Align to the base's alone"
        ) from error
    tokens = tokens_of(union)
    if known != tokens:
        wrong = sorted(t for t, i in tokens.items() if known.get(t) != i)
        raise EvoError(
            f"{ours.path / STATE_FILE}: once extended, it gives {some(wrong)} other ids than "
            "planned. Align to the base's alone"
        )
    return TargetVocabulary(union, tokens, ours.path, base_name, True)


def _moves(plan: TokenPlan, checkpoint: TokenFiles, name: str, target: TargetVocabulary) -> bool:
    same_rows = checkpoint.rows == plan.rows and torch.equal(
        plan.sources[name], torch.arange(plan.rows)
    )
    return not same_rows or checkpoint.tokens != target.tokens


def _write_all(
    read: Mapping[str, TokenFiles],
    base_name: str,
    changed: list[str],
    plan: TokenPlan,
    target: TargetVocabulary,
    untie: bool,
    out: Path,
) -> None:
    opened = {name: read_tables(c, untie) for name, c in read.items()}
    spelled = {k: next((getattr(c, k) for c in read.values() if getattr(c, k)), "") for k in KINDS}
    fills = {}
    for kind in KINDS:
        having = {name: tables[kind] for name, tables in opened.items() if kind in tables}
        if having:
            fills[kind] = fill_rows(plan, having, base_name)
    with whole_folder(out) as folder:
        for name in changed:
            tables = {
                getattr(read[name], kind) or spelled[kind]: aligned_table(
                    plan, table, name, fills[kind]
                )
                for kind, table in opened[name].items()
            }
            write_folder(read[name], tables, target, untie, folder / name)


def _notes(
    read: Mapping[str, TokenFiles],
    base_name: str,
    target: TargetVocabulary,
    plan: TokenPlan,
    untie: bool,
) -> tuple[str, ...]:
    wanted = roles(target.folder)
    notes = [f"tokens of {target.folder}: {len(target.tokens)} in {plan.rows} rows"]
    for name, checkpoint in read.items():
        said = "the base" if name == base_name else name
        dropped = sorted(checkpoint.tokens.keys() - target.tokens.keys())
        if dropped:
            notes.append(f"{said}: tokens dropped: {len(dropped)} ({some(dropped)})")
        source = plan.sources[name].tolist()
        lacks = [t for t, i in target.tokens.items() if source[i] < 0]
        if lacks:
            notes.append(f"{said}: tokens with rows of other models: {len(lacks)} ({some(lacks)})")
        spare = set(range(checkpoint.rows)) - set(checkpoint.tokens.values()) - set(source)
        if spare:
            notes.append(f"{said}: rows of no token, left out: {len(spare)}")
        if checkpoint.path.resolve() != target.folder.resolve():
            for role, token in roles(checkpoint.path).items():
                if wanted.get(role, token) != token:
                    notes.append(f"{said}: its {role} is {token!r}; {wanted[role]!r} is used")
        if untie and checkpoint.tied:
            notes.append(f"{said}: head untied from the embedding")
    return tuple(notes)
