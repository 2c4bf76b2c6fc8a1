"""Founders' files for nodes that lack them: sent once per node, checked, kept by content.

A manifest names a founder's files with their sizes and SHA-256. A node takes them piece by piece into
a folder named after the manifest's digest. Nothing here knows Ray: bytes come from a `FileSource`.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from filelock import FileLock

from cluster.errors import CheckpointError
from cluster.founders.adapters import ADAPTER_FILE, is_adapter
from cluster.founders.checkpoints import FounderFiles, tensor_files
from cluster.jobs import HostSpec

Shipping: TypeAlias = Literal["auto", "always", "never"]

CACHE_VARIABLE = "EVO_FOUNDERS_CACHE"
PIECE_BYTES = 16 * 2**20  # a few of them must fit into Ray's object store
_BESIDE = (".json", ".txt", ".model", ".jinja")  # configs and tokenizers
_CODE = ".py"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a founder: its plain name, bytes and SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FounderManifest:
    """A founder's files, in order of name. ``single``: the founder is the one file, not a folder."""

    files: tuple[FileEntry, ...]
    single: bool

    @property
    def digest(self) -> str:
        """SHA-256 of all that the manifest says."""
        parts = [[f.name, f.size, f.sha256] for f in self.files]
        return hashlib.sha256(json.dumps([self.single, parts]).encode()).hexdigest()


class FileSource(Protocol):
    """Where the bytes are. Founders go by their place in `parts_of`'s order."""

    def outline(self, founder: int) -> tuple[tuple[str, int], ...]:
        """Names and sizes of a founder's files: quick."""
        ...

    def manifest(self, founder: int) -> FounderManifest:
        """Their content as well: reads every byte the first time."""
        ...

    def read(self, founder: int, name: str, offset: int, size: int) -> bytes:
        """A piece of a file that the manifest names."""
        ...


def parts_of(spec: HostSpec) -> tuple[FounderFiles, ...]:
    """What a host needs, in the order that sources number it: the base, then the founders."""
    return (spec.base, *spec.founders)


class LocalFileSource:
    """The founders' files on this machine; a checkpoint's Python files only if they are trusted."""

    def __init__(self, spec: HostSpec) -> None:
        self._paths = [part.path for part in parts_of(spec)]
        self._code = spec.engine.trust_remote_code
        self._manifests: dict[int, FounderManifest] = {}
        self._sent = 0

    def outline(self, founder: int) -> tuple[tuple[str, int], ...]:
        files = needed_files(self._paths[founder], code=self._code)
        return tuple((f.name, f.stat().st_size) for f in files)

    def manifest(self, founder: int) -> FounderManifest:
        if founder not in self._manifests:
            self._manifests[founder] = manifest_of(self._paths[founder], code=self._code)
        return self._manifests[founder]

    def read(self, founder: int, name: str, offset: int, size: int) -> bytes:
        if name not in {f.name for f in self.manifest(founder).files}:
            raise CheckpointError(f"{name!r} is no file of founder {founder}")
        path = self._paths[founder]
        with (path if self.manifest(founder).single else path / name).open("rb") as file:
            file.seek(offset)
            piece = file.read(size)
        self._sent += len(piece)
        return piece

    def sent(self) -> int:
        """Bytes given out so far."""
        return self._sent


def needed_files(path: Path, *, code: bool) -> tuple[Path, ...]:
    """The files that make a founder: tensors, configs, tokenizer; in order of name.

    Never pickles; Python files only where the run's user trusts them (``code``).

    Raises:
        CheckpointError: ``path`` is no checkpoint.
    """
    if path.is_file():
        return tensor_files(path)
    tensors = [path / ADAPTER_FILE] if is_adapter(path) else [*tensor_files(path)]
    endings = (*_BESIDE, _CODE) if code else _BESIDE
    beside = [f for f in path.iterdir() if f.is_file() and f.suffix in endings]
    return tuple(sorted({*tensors, *beside}, key=lambda f: f.name))


def manifest_of(path: Path, *, code: bool = False) -> FounderManifest:
    """Read all files of a founder.

    Raises:
        CheckpointError: ``path`` is no checkpoint, or a file can't be read.
    """
    try:
        parts = tuple(
            FileEntry(f.name, f.stat().st_size, _sha256(f)) for f in needed_files(path, code=code)
        )
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error})") from error
    return FounderManifest(parts, single=path.is_file())


def localise(spec: HostSpec, source: FileSource, mode: Shipping) -> HostSpec:
    """``spec`` with paths that lead, on this node, to the files that ``source`` has.

    ``auto`` uses a path that holds files of the same names and sizes. Whether they are the same
    tensors is checked when founders are mapped, by digest.

    Raises:
        CheckpointError: files can't be had, or can't be written here.
    """
    if mode == "never":
        return spec
    moved = tuple(_localised(part, i, source, mode, spec) for i, part in enumerate(parts_of(spec)))
    return replace(spec, base=moved[0], founders=moved[1:])


def _localised(
    part: FounderFiles, number: int, source: FileSource, mode: Shipping, spec: HostSpec
) -> FounderFiles:
    if mode == "auto":
        try:
            here = needed_files(part.path, code=spec.engine.trust_remote_code)
            found = tuple((f.name, f.stat().st_size) for f in here)
        except (CheckpointError, OSError):
            found = ()
        if found and found == tuple(source.outline(number)):
            return part

    def read(name: str, offset: int, size: int) -> bytes:
        return source.read(number, name, offset, size)

    return replace(part, path=fetch(source.manifest(number), read, cache_folder()))


def cache_folder() -> Path:
    """Where a node keeps founders that were sent to it; may be deleted when no run uses it."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "evo-models" / "founders"


def fetch(manifest: FounderManifest, read: Callable[[str, int, int], bytes], cache: Path) -> Path:
    """The founder's path in ``cache``, its files fetched by ``read(name, offset, size)`` if need be.

    Whoever comes first on a node fetches and the others wait. An entry is complete or absent, and
    one that is damaged is fetched again.

    Raises:
        CheckpointError: a name that could leave the folder, wrong bytes, or no room.
    """
    _check_names(manifest)
    entry = cache / manifest.digest
    path = entry / manifest.files[0].name if manifest.single else entry
    if _holds(entry, manifest):
        return path
    with _writing(cache):
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(cache / f"{manifest.digest}.lock"):
            if _holds(entry, manifest):
                return path
            shutil.rmtree(entry, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix=".fetching-") as temporary:
                new = Path(temporary) / "founder"
                new.mkdir()
                for part in manifest.files:
                    _fetch_file(part, read, new / part.name)
                new.rename(entry)
    return path


def _fetch_file(part: FileEntry, read: Callable[[str, int, int], bytes], out: Path) -> None:
    digest, done = hashlib.sha256(), 0
    with out.open("xb") as file:
        while done < part.size:
            piece = read(part.name, done, min(PIECE_BYTES, part.size - done))
            if not piece:
                break
            digest.update(piece)
            file.write(piece)
            done += len(piece)
        file.flush()
        os.fsync(file.fileno())
    if done != part.size or digest.hexdigest() != part.sha256:
        raise CheckpointError(
            f"{part.name}: what arrived is not what the run's founder holds (its digest differs). Did the "
            "file change since the run began?"
        )


def _check_names(manifest: FounderManifest) -> None:
    names = [part.name for part in manifest.files]
    for name in names:
        if not name or name in (".", "..") or any(c in name for c in "/\\\0"):
            raise CheckpointError(f"a founder's file is called {name!r}, which leaves its folder")
    if len(set(names)) != len(names) or not names or (manifest.single and len(names) != 1):
        raise CheckpointError("a founder's list of files contradicts itself")


def _holds(entry: Path, manifest: FounderManifest) -> bool:
    """Whether ``entry`` has just the files of ``manifest``, byte for byte."""
    try:
        sizes = {f.name: f.stat().st_size for f in entry.iterdir()}
        return sizes == {p.name: p.size for p in manifest.files} and all(
            _sha256(entry / p.name) == p.sha256 for p in manifest.files
        )
    except OSError:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _writing(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{cache}: founders can't be kept on this node ({error}). Make room there, set "
            f"{CACHE_VARIABLE} to another folder, or put the founders on a path that every node sees"
        ) from error
