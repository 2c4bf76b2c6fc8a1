"""A working folder as one zip file, for a job on a cluster.

Left out: hidden files and folders (.git, .venv, .env), caches, run directories, and links that lead out of
the folder.
"""

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from cluster.errors import PoolError

MAX_BYTES = 400 * 2**20  # Ray keeps packages in the head's memory and refuses more than 512 MiB
_LEFT_OUT = ("__pycache__", "runs", "node_modules", "venv")
_IN_A_RUN = ("lineage", "config.json")
_DATE = (1980, 1, 1, 0, 0, 0)  # fixed, so that Ray has the package of the same files already


def is_left_out(relative: Path) -> bool:
    """Whether the file or folder at ``relative`` is left out because of its name."""
    return any(part.startswith(".") or part in _LEFT_OUT for part in relative.parts)


def pack(folder: Path, more: Mapping[str, bytes], out: Path) -> None:
    """Write the files of ``folder``, and ``more`` (content by name), to the zip file ``out``.

    Raises:
        PoolError: they are too large for a job; names the largest file.
    """
    files = sorted(_files(folder))
    sizes = {file: file.stat().st_size for file in files}
    if sum(sizes.values()) > MAX_BYTES:
        largest = max(files, key=sizes.__getitem__)
        raise PoolError(
            f"{folder}: {sum(sizes.values()) / 2**20:.0f} MiB are too much to ship with a job; the largest "
            f"file is {largest.relative_to(folder)} ({sizes[largest] / 2**20:.0f} MiB). Put founders where "
            "the cluster sees them, outside of this folder, and give their absolute paths"
        )
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as package:
        for file in files:
            if (name := file.relative_to(folder).as_posix()) not in more:
                _add(package, name, file.read_bytes())
        for name, content in more.items():
            _add(package, name, content)


def _add(package: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.external_attr = 0o644 << 16
    package.writestr(entry, content, compress_type=zipfile.ZIP_DEFLATED)


def _files(folder: Path) -> Iterator[Path]:
    root = folder.resolve()
    for place, folders, names in os.walk(folder):
        here = Path(place)
        folders[:] = [
            f
            for f in folders
            if not is_left_out(Path(f)) and not all((here / f / n).exists() for n in _IN_A_RUN)
        ]
        for name in names:
            file = here / name
            inside = file.is_file() and file.resolve().is_relative_to(root)
            if inside and not is_left_out(Path(name)):
                yield file
