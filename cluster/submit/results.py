"""A run directory as text, which a job prints to send it back, and the text as a folder.

A run directory is small: config, lineage, journal, summary. Weights are left out.
"""

import base64
import binascii
import hashlib
import io
import os
import tarfile
import tempfile
from pathlib import Path

from cluster.errors import PoolError

MAX_BYTES = 256 * 2**20
MAX_FILES = 100_000
_BEGIN, _END = "-----BEGIN EVO RUN-----", "-----END EVO RUN-----"
_WEIGHTS = (".safetensors", ".bin", ".pt")


def packed(run_dir: Path) -> str:
    """All files of ``run_dir`` except weights, as text between markers, with a digest.

    Raises:
        PoolError: no such folder, or larger than `MAX_BYTES`.
    """
    if not run_dir.is_dir():
        raise PoolError(f"{run_dir}: no such folder on the cluster's head")
    files = [
        f
        for f in sorted(run_dir.rglob("*"))
        if f.is_file() and not f.is_symlink() and f.suffix not in _WEIGHTS
    ]
    size = sum(f.stat().st_size for f in files)
    if size > MAX_BYTES or len(files) > MAX_FILES:
        raise PoolError(
            f"{run_dir}: {size / 2**20:.0f} MiB in {len(files)} files are too much to fetch through the "
            "job's output; copy the folder by scp or rsync"
        )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for file in files:
            archive.add(file, file.relative_to(run_dir).as_posix(), recursive=False)
    data = buffer.getvalue()
    text = base64.encodebytes(data).decode()
    return f"{_BEGIN}\n{hashlib.sha256(data).hexdigest()}\n{text}{_END}\n"


def check_free(out: Path) -> None:
    """Check that ``out`` does not exist or is an empty folder.

    Raises:
        PoolError: it exists and is not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PoolError(f"{out}: exists already; choose another folder to fetch to")


def unpack(text: str, out: Path) -> None:
    """Write the folder in ``text``, which may contain other lines, to ``out``, completely or not at all.

    File names from a cluster are not trusted: every file stays in ``out``.

    Raises:
        PoolError: the text is incomplete, its digest is wrong, it is too large, or a name leaves the folder.
    """
    check_free(out)
    _, begin, rest = text.partition(_BEGIN + "\n")
    body, end, _ = rest.partition(_END)
    digest, _, encoded = body.partition("\n")
    try:
        data = base64.b64decode(encoded, validate=False)
    except binascii.Error:
        data = b""
    if not begin or not end or hashlib.sha256(data).hexdigest() != digest.strip():
        raise PoolError("the run directory that came back is not complete; fetch it again")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        inside = Path(temporary) / "run"
        inside.mkdir()
        try:
            _extract(data, inside)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise PoolError(
                f"the run directory that came back can't be unpacked: {error}"
            ) from error
        if out.is_dir():
            out.rmdir()
        os.replace(inside, out)


def _extract(data: bytes, folder: Path) -> None:
    left = MAX_BYTES
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for number, member in enumerate(archive):
            left -= member.size
            if left < 0 or number >= MAX_FILES:
                raise PoolError(
                    f"the run directory that came back is larger than {MAX_BYTES} bytes"
                )
            if not member.isreg():
                raise PoolError(
                    f"the run directory that came back has {member.name!r}, which is not a file"
                )
            archive.extract(member, folder, filter="data")
