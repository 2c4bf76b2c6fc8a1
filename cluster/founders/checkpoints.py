"""Checkpoints as founders: memory-mapped tensors and content digests."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cluster.errors import CheckpointError as CheckpointError
from cluster.founders.adapters import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    adapter_digest,
    is_adapter,
    open_adapter,
)
from operators.recipe import Founder
from operators.recipe.layers import layer_count
from operators.tensors.low_rank import Adapter
from operators.tensors.weights import Layout, Weights, check_fit, weights_of

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_PIECE_BYTES = 64 * 2**20  # copied from a device to host memory at a time
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth")


@dataclass(frozen=True, slots=True)
class FounderFiles:
    """A founder, with the digest of its tensors at the start of the run, and the path of its files."""

    founder: Founder
    path: Path


@dataclass(frozen=True, slots=True)
class FounderSet:
    """The founders of a run and their base. ``base`` is in the population only if it is a founder, too."""

    base: FounderFiles
    founders: tuple[FounderFiles, ...]
    layers: int

    def all_files(self) -> tuple[FounderFiles, ...]:
        return (self.base, *(f for f in self.founders if f.founder != self.base.founder))


def open_checkpoint(path: Path) -> Weights:
    """Open the floating-point tensors of a checkpoint folder, or of one ``.safetensors`` file.

    Tensors are private views of memory-mapped files: data is read when it is used, processes on one
    machine share the pages, and writing to a tensor does not change the file.

    Raises:
        CheckpointError: no such folder, no safetensors in it, pickled weights only, or a damaged file.
    """
    tensors: dict[str, Tensor] = {}
    for file, names in tensors_by_file(path).items():
        try:
            with safe_open(file, framework="pt") as opened:
                tensors |= {name: opened.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: not a readable safetensors file ({error})") from error
    if not any(t.is_floating_point() for t in tensors.values()):
        raise CheckpointError(f"{path}: no floating-point tensors in this checkpoint")
    return weights_of(tensors)


def tensors_by_file(path: Path) -> dict[Path, tuple[str, ...]]:
    """The names of a checkpoint's tensors, by file.

    In a sharded checkpoint, only the tensors that the index assigns to a file count.

    Raises:
        CheckpointError: as `tensor_files`; a file is damaged or lacks a tensor of the index.
    """
    files = tensor_files(path)
    index = path / INDEX_FILE
    listed = json.loads(index.read_text())["weight_map"] if index.is_file() else None
    named = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                there = tuple(opened.keys())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: not a readable safetensors file ({error})") from error
        if listed is not None:
            wanted = tuple(n for n, f in listed.items() if f == file.name)
            if lacking := sorted(set(wanted) - set(there)):
                raise CheckpointError(
                    f"{file}: lacks {lacking[0]!r}, which {INDEX_FILE} assigns to it"
                )
            there = wanted
        named[file] = there
    return named


def tensor_files(path: Path) -> tuple[Path, ...]:
    """The safetensors files of a checkpoint, in a fixed order.

    Raises:
        CheckpointError: there are none, or the index names one that is missing.
    """
    if path.is_file() and path.suffix == ".safetensors":
        return (path,)
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such checkpoint folder")
    index = path / INDEX_FILE
    if index.is_file():
        try:
            mapping = json.loads(index.read_text())["weight_map"]
            names = sorted(set(mapping.values()))
            away = next((n for n in names if n in ("", ".", "..") or Path(n).name != n), None)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{index}: not a safetensors index ({error!r})") from error
        if away is not None:
            raise CheckpointError(f"{index}: lists the file {away!r}, which is not in this folder")
        files = tuple(path / name for name in names)
        for file in files:
            if not file.is_file():
                raise CheckpointError(f"{file}: missing, though {INDEX_FILE} lists it")
        return files
    if (path / SINGLE_FILE).is_file():
        return (path / SINGLE_FILE,)
    if (path / ADAPTER_CONFIG).is_file():
        raise CheckpointError(
            f"{path}: is a PEFT adapter, which can be a founder, but not a base or a model to merge. "
            "Merge it into its base first (peft's merge_and_unload)"
        )
    pickled = next((name for name in _PICKLED if (path / name).exists()), None)
    if pickled:
        raise CheckpointError(
            f"{path / pickled}: pickled weights can run code when loaded and are refused. Convert "
            "them: load the model with transformers and save_pretrained(..., safe_serialization=True)"
        )
    raise CheckpointError(f"{path}: has neither {SINGLE_FILE} nor {INDEX_FILE}")


def digest_of(weights: Weights) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all tensors, in order of name."""
    digest = hashlib.sha256()
    for spec in weights.layout:
        digest.update(f"{spec.name}|{spec.dtype}|{spec.shape}|".encode())
        for piece in bytes_of(weights[spec.name]):
            digest.update(piece)
    return digest.hexdigest()


def bytes_of(tensor: Tensor) -> Iterator[memoryview]:
    """The bytes of a tensor, in pieces that are copied to host memory one after another."""
    flat = tensor.contiguous().reshape(-1).view(torch.uint8)
    for piece in torch.split(flat, _PIECE_BYTES):
        yield piece.cpu().numpy().data


def load_founders(base: Path, founders: Mapping[str, Path]) -> FounderSet:
    """Open, check and digest a run's checkpoints: whole models, or PEFT adapters of the base.

    The base may be a founder too, by its own path or as a copy.

    Raises:
        CheckpointError: a checkpoint or adapter can't be read, holds NaN, or is listed twice; an
            adapter is not plain LoRA or belongs to another base.
        WeightsMismatchError: a founder's tensors don't fit the base's.
    """
    ancestor = open_checkpoint(base)
    _check_finite(ancestor, base)
    name = next((n for n, p in founders.items() if p.resolve() == base.resolve()), "base")
    base_files = FounderFiles(Founder(name, digest_of(ancestor)), base)
    loaded = []
    for founder_name, path in founders.items():
        if is_adapter(path):
            digest = adapter_digest(open_adapter(path, base_files.founder, ancestor))
        elif path.resolve() == base.resolve():
            digest = base_files.founder.digest
        else:
            weights = open_checkpoint(path)
            _check_finite(weights, path)
            check_fit(
                ancestor.layout, weights.layout, expected_from=str(base), other_from=str(path)
            )
            digest = digest_of(weights)
        loaded.append(FounderFiles(Founder(founder_name, digest), path))
    by_digest: dict[str, str] = {}
    for entry in loaded:
        twin = by_digest.setdefault(entry.founder.digest, entry.founder.name)
        if twin != entry.founder.name:
            raise CheckpointError(
                f"{entry.path}: founders {twin!r} and {entry.founder.name!r} hold the same tensors; "
                "name each model once"
            )
    return FounderSet(base_files, tuple(loaded), layer_count(ancestor.layout.names))


def _check_finite(weights: Weights, path: Path) -> None:
    # Every child of such a founder would fail, with an error that does not name the founder.
    bad = next((n for n, t in weights.tensors.items() if not bool(torch.isfinite(t).all())), None)
    if bad is not None:
        raise CheckpointError(f"{path}: tensor {bad!r} holds NaN or infinite values")


def map_founders(files: Sequence[FounderFiles]) -> dict[Founder, Weights | Adapter]:
    """Memory-map the checkpoints, and check that they have not changed since the run began.

    The first of ``files`` is the base, which adapters change.

    Raises:
        CheckpointError: a file has changed, or can't be read.
    """
    ancestor = _unchanged(files[0])
    mapped: dict[Founder, Weights | Adapter] = {files[0].founder: ancestor}
    for entry in files[1:]:
        if is_adapter(entry.path):
            adapter = open_adapter(entry.path, files[0].founder, ancestor)
            _check_digest(entry, adapter_digest(adapter))
            mapped[entry.founder] = adapter
        elif entry.founder not in mapped:
            mapped[entry.founder] = _unchanged(entry)
    return mapped


def base_weights(base: Founder, founders: Mapping[Founder, Weights | Adapter]) -> Weights:
    """The base's tensors among mapped founders."""
    weights = founders[base]
    if isinstance(weights, Adapter):
        raise TypeError("an adapter can't be a base")
    return weights


def _unchanged(entry: FounderFiles) -> Weights:
    weights = open_checkpoint(entry.path)
    _check_digest(entry, digest_of(weights))
    return weights


def _check_digest(entry: FounderFiles, digest: str) -> None:
    if digest != entry.founder.digest:
        raise CheckpointError(
            f"{entry.path}: the tensors of founder {entry.founder.name!r} have changed since the run began "
            "(digests differ). Restore the files, or start a new run"
        )


def layout_for(ancestor: Weights, dtype: torch.dtype | None) -> Layout:
    """The layout of children: the base's names and shapes, in ``dtype`` or the base's own dtypes."""
    if dtype is None:
        return ancestor.layout
    cast = {name: t.to(device="meta", dtype=dtype) for name, t in ancestor.tensors.items()}
    return weights_of(cast).layout


def mapped_bytes(files: Iterable[FounderFiles]) -> int:
    """The size of all files that a host of these founders maps.

    Raises:
        CheckpointError: a checkpoint has no tensor files.
    """
    paths = {entry.path for entry in files}
    mapped = [f for p in paths for f in ((p / ADAPTER_FILE,) if is_adapter(p) else tensor_files(p))]
    return sum(file.stat().st_size for file in mapped)
