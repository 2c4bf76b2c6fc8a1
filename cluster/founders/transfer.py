"""Transfer of founders' files to nodes that lack them: once per node, checked, stored by content.

A manifest lists a founder's files with their sizes and SHA-256. A node fetches them in pieces from a
`FileSource` into a folder named by the manifest's digest.
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
PIECE_BYTES = 16 * 2**20  # several must fit into Ray's object store
_BESIDE = (".json", ".txt", ".model", ".jinja")  # configs and tokenizers
_CODE = ".py"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a founder: its name without folders, size in bytes and SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FounderManifest:
    """A founder's files, in order of name. ``single``: the founder is one file, not a folder."""

    files: tuple[FileEntry, ...]
    single: bool

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest."""
        parts = [[f.name, f.size, f.sha256] for f in self.files]
        return hashlib.sha256(json.dumps([self.single, parts]).encode()).hexdigest()


class FileSource(Protocol):
    """Reads founders' files. ``founder`` is an index into `parts_of`."""

    def outline(self, founder: int) -> tuple[tuple[str, int], ...]:
        """Names and sizes of a founder's files; does not read them."""
        ...

    def manifest(self, founder: int) -> FounderManifest:
        """The founder's manifest; the first call reads all its files."""
        ...

    def read(self, founder: int, name: str, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes at ``offset`` of a file that the manifest lists."""
        ...


def parts_of(spec: HostSpec) -> tuple[FounderFiles, ...]:
    """The files that a host needs: the base, then the founders."""
    return (spec.base, *spec.founders)


class LocalFileSource:
    """Founders' files on this machine; Python files only with ``engine.trust_remote_code``."""

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
            raise CheckpointError(f"{name!r} is not a file of founder {founder}")
        path = self._paths[founder]
        with (path if self.manifest(founder).single else path / name).open("rb") as file:
            file.seek(offset)
            piece = file.read(size)
        self._sent += len(piece)
        return piece

    def sent(self) -> int:
        """Bytes read so far."""
        return self._sent


def needed_files(path: Path, *, code: bool) -> tuple[Path, ...]:
    """The files of a founder: tensors, configs, tokenizer; in order of name.

    No pickles, and Python files only if ``code``.

    Raises:
        CheckpointError: ``path`` is not a checkpoint.
    """
    if path.is_file():
        return tensor_files(path)
    tensors = [path / ADAPTER_FILE] if is_adapter(path) else [*tensor_files(path)]
    endings = (*_BESIDE, _CODE) if code else _BESIDE
    beside = [f for f in path.iterdir() if f.is_file() and f.suffix in endings]
    return tuple(sorted({*tensors, *beside}, key=lambda f: f.name))


def manifest_of(path: Path, *, code: bool = False) -> FounderManifest:
    """Read all files of a founder; return their manifest.

    Raises:
        CheckpointError: ``path`` is not a checkpoint, or a file can't be read.
    """
    try:
        parts = tuple(
            FileEntry(f.name, f.stat().st_size, _sha256(f)) for f in needed_files(path, code=code)
        )
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error})") from error
    return FounderManifest(parts, single=path.is_file())


def localise(spec: HostSpec, source: FileSource, mode: Shipping) -> HostSpec:
    """``spec`` with paths of this node; files are fetched from ``source`` if necessary.

    ``auto`` keeps a path with files of the same names and sizes; digests are checked when founders are
    mapped. ``always`` fetches all, ``never`` none.

    Raises:
        CheckpointError: files can't be fetched, or can't be written here.
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
    """The folder of fetched founders on this node; may be deleted when no run uses it."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "evo-models" / "founders"


def fetch(manifest: FounderManifest, read: Callable[[str, int, int], bytes], cache: Path) -> Path:
    """The founder's path in ``cache``; fetches its files by ``read(name, offset, size)`` if necessary.

    The first process on a node fetches and the others wait. An entry is complete or absent, and a
    damaged one is fetched again.

    Raises:
        CheckpointError: a file name leads out of the folder, wrong bytes arrived, or the disk is full.
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
            f"{part.name}: the file that arrived differs from the run's founder (digests differ). Did the "
            "file change since the run began?"
        )


def _check_names(manifest: FounderManifest) -> None:
    names = [part.name for part in manifest.files]
    for name in names:
        if not name or name in (".", "..") or any(c in name for c in "/\\\0"):
            raise CheckpointError(f"a founder's file is called {name!r}, which leaves its folder")
    if len(set(names)) != len(names) or not names or (manifest.single and len(names) != 1):
        raise CheckpointError("a founder's list of files is empty or names a file twice")


def _holds(entry: Path, manifest: FounderManifest) -> bool:
    """Whether ``entry`` has exactly the files of ``manifest``, by SHA-256."""
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
            f"{cache}: founders can't be stored on this node ({error}). Free disk space there, set "
            f"{CACHE_VARIABLE} to another folder, or put the founders on a path that every node sees"
        ) from error
