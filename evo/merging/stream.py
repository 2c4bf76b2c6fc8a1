"""Safetensors files written tensor by tensor: the header first, then every piece to its place.

Inputs are mapped, results go to the file as they are made: what stays in memory is one tensor's
intermediates for each thread, and for methods that work in blocks (:mod:`operators.merge.blocks`) a few
blocks. Threads change nothing but the time: each makes whole tensors.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cluster.founders.checkpoints import INDEX_FILE, SINGLE_FILE
from evo.errors import EvoError
from evo.merging.checkpoint import ModelFiles
from evo.merging.plan import MergePlan, TensorAt, TensorPlan
from operators.merge.blocks import spans
from operators.merge.table import MergeMethod, Values
from operators.tensors.threads import torch_threads
from operators.tensors.weights import ALIGNMENT_BYTES, TensorSpec

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_SYNC_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Shard:
    """One file: its tensors in order, its header, and where each tensor's bytes begin."""

    name: str
    specs: tuple[TensorSpec, ...]
    header: bytes
    offsets: tuple[int, ...]
    size: int


def shards(specs: Sequence[TensorSpec], limit: int) -> tuple[Shard, ...]:
    """Files of ``limit`` bytes or less for the tensors (more, where one tensor alone is larger)."""
    groups: list[list[TensorSpec]] = [[]]
    filled = 0
    for spec in specs:
        if groups[-1] and filled + _bytes(spec) > limit:
            groups.append([])
            filled = 0
        groups[-1].append(spec)
        filled += _bytes(spec)
    if len(groups) == 1:
        return (_shard(SINGLE_FILE, groups[0]),)
    names = [f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors" for i in range(len(groups))]
    return tuple(_shard(name, group) for name, group in zip(names, groups, strict=True))


def _bytes(spec: TensorSpec) -> int:
    return spec.elements * spec.dtype.itemsize


def _shard(name: str, group: Sequence[TensorSpec]) -> Shard:
    specs = sorted(group, key=lambda s: (-s.dtype.itemsize, s.name))  # so that all are aligned
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offsets, end = [], 0
    for spec in specs:
        offsets.append(end)
        end += _bytes(spec)
        entries[spec.name] = {
            "dtype": _NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [offsets[-1], end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT_BYTES)
    header = len(text).to_bytes(8, "little") + text
    return Shard(
        name, tuple(specs), header, tuple(len(header) + o for o in offsets), len(header) + end
    )


def write(
    plan: MergePlan,
    method: MergeMethod,
    seed: int,
    models: Mapping[Path, ModelFiles],
    folder: Path,
    *,
    shard_bytes: int,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[Shard, ...]:
    """Merge as planned into safetensors files in ``folder``, and an index if they are several.

    ``progress`` gets the bytes of every tensor that is done, and of all. Files are on the disk when
    this returns.
    """
    files = shards([t.spec for t in plan.tensors], shard_bytes)
    size = sum(_bytes(t.spec) for t in plan.tensors)
    places: dict[str, tuple[int, int]] = {}
    descriptors: list[int] = []
    try:
        for shard in files:
            descriptor = os.open(folder / shard.name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            descriptors.append(descriptor)
            os.ftruncate(descriptor, shard.size)
            _put(descriptor, shard.header, 0)
            for spec, offset in zip(shard.specs, shard.offsets, strict=True):
                places[spec.name] = (descriptor, offset)
        merger = _Merger(method, seed, models, places)
        with torch_threads(1):
            merger.merge(plan.tensors, threads, lambda done: progress(done, size))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    if len(files) > 1:
        index = {
            "metadata": {"total_size": size},
            "weight_map": {s.name: f.name for f in files for s in f.specs},
        }
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return files


class _Merger:
    """Makes tensors and puts them where they belong."""

    def __init__(
        self,
        method: MergeMethod,
        seed: int,
        models: Mapping[Path, ModelFiles],
        places: Mapping[str, tuple[int, int]],
    ) -> None:
        self._method = method
        self._seed = seed
        self._models = models
        self._places = places

    def merge(
        self, plans: Sequence[TensorPlan], threads: int, progress: Callable[[int], None]
    ) -> None:
        whole = [p for p in plans if p.values is not None and self._method.scope == "model"]
        if whole:
            self._merge_wholes(whole)
        rest = [p for p in plans if p.values is None or self._method.scope == "tensor"]
        progress(sum(_bytes(p.spec) for p in whole))
        with ThreadPoolExecutor(threads) as pool:
            waiting = [pool.submit(self._merge_one, p) for p in rest]
            unsafe = 0
            try:
                for plan, done in zip(rest, waiting, strict=True):
                    done.result()
                    progress(_bytes(plan.spec))
                    unsafe += _bytes(plan.spec)
                    if unsafe > _SYNC_BYTES:  # the disk works while the other threads merge
                        self._sync()
                        unsafe = 0
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        self._sync()

    def _sync(self) -> None:
        for descriptor in {d for d, _ in self._places.values()}:
            os.fsync(descriptor)

    def _tensor(self, at: TensorAt) -> Tensor:
        return self._models[at.model].tensors[at.name]

    @torch.inference_mode()
    def _merge_one(self, plan: TensorPlan) -> None:
        spec = plan.spec
        inputs = [self._tensor(a) for a in plan.inputs]
        if plan.values is None:
            self._write(spec, inputs[0])
            return
        base = None if plan.base is None else self._tensor(plan.base)
        if self._method.blocks is not None:
            blocks = self._method.blocks(inputs, base, plan.values, self._seed, spec.name)
            for start, stop in spans(spec.elements):
                self._write(spec, blocks(start, stop), start)
            return
        whole = [t.float() for t in inputs]
        self._write(spec, self._whole(whole, base, plan.values, spec.name))

    def _whole(
        self, inputs: Sequence[Tensor], base: Tensor | None, values: Values, name: str
    ) -> Tensor:
        origin = None if base is None else base.float()
        try:
            return self._method.function(inputs, origin, values, self._seed, name)
        except ValueError as error:  # a method of adapters, say
            raise EvoError(f"{f'tensor {name!r}: ' if name else ''}{error}") from error

    @torch.inference_mode()
    def _merge_wholes(self, plans: Sequence[TensorPlan]) -> None:
        """The method sees all tensors at once, joined in order of name: float32 copies of all models."""
        values = plans[0].values
        if values is None:
            raise TypeError("these are copies")

        sizes = [p.spec.elements for p in plans]

        def joined(each: Sequence[TensorAt]) -> Tensor:
            made = torch.empty(sum(sizes))
            for part, at in zip(torch.split(made, sizes), each, strict=True):
                part.copy_(self._tensor(at).reshape(-1))
            return made

        inputs = [joined([p.inputs[i] for p in plans]) for i in range(len(plans[0].inputs))]
        bases = [p.base for p in plans if p.base is not None]
        base = joined(bases) if bases else None
        merged = self._whole(inputs, base, values, "")
        for plan, part in zip(plans, torch.split(merged, sizes), strict=True):
            self._write(plan.spec, part)

    def _write(self, spec: TensorSpec, values: Tensor, start: int = 0) -> None:
        """Cast and write elements from ``start`` on."""
        descriptor, offset = self._places[spec.name]
        flat = values.to(spec.dtype).contiguous().reshape(-1)
        if flat.numel():
            data = flat.view(torch.uint8).numpy().data
            _put(descriptor, data, offset + start * spec.dtype.itemsize)


def _put(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while len(view):
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
