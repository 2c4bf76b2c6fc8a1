"""A run folder as text, to be carried home in what a job prints, and back into a folder.

A run's folder is small: config, lineage, journal, summary. Weights are not in it, or stay there.
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
    """All files of ``run_dir`` but weights, as text between markers, with a digest.

    Raises:
        PoolError: no such folder, or more than `MAX_BYTES`.
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
    """Refuse to write into a folder that holds something.

    Raises:
        PoolError: it does.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PoolError(f"{out}: exists already; choose another folder to fetch to")


def unpack(text: str, out: Path) -> None:
    """Write the folder that ``text`` holds, among other lines, to ``out``, whole or not at all.

    What comes from a cluster is not trusted with places: every file stays in ``out``.

    Raises:
        PoolError: nothing complete in it, a wrong digest, too much, or a name that leaves the folder.
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
        raise PoolError("what came back of the run folder is not complete; fetch it again")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        inside = Path(temporary) / "run"
        inside.mkdir()
        try:
            _extract(data, inside)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise PoolError(f"the run folder that came back can't be unpacked: {error}") from error
        if out.is_dir():
            out.rmdir()
        os.replace(inside, out)


def _extract(data: bytes, folder: Path) -> None:
    left = MAX_BYTES
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for number, member in enumerate(archive):
            left -= member.size
            if left < 0 or number >= MAX_FILES:
                raise PoolError(f"the run folder that came back is larger than {MAX_BYTES} bytes")
            if not member.isreg():
                raise PoolError(
                    f"the run folder that came back holds {member.name!r}, which is no file"
                )
            archive.extract(member, folder, filter="data")
