"""The kernel of ``sums.c``, compiled for this processor when it is first wanted.

Weighted sums in bfloat16 by torch alone are four passes over the cache for each term, and far from the
speed of memory. A C compiler is all that it takes; without one, torch does the same sums, bit for bit.
"""

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SOURCE: Final = Path(__file__).with_name("sums.c")
# A product and an addition round separately: without contraction they stay two instructions.
FLAGS: Final = ("-O3", "-march=native", "-ffp-contract=off", "-shared", "-fPIC")
KINDS: Final = {torch.float32: 0, torch.bfloat16: 1}
_COMPILERS: Final = ("cc", "gcc", "clang")
_TIMEOUT_S: Final = 60.0


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel; None where there is no compiler, or none that can make it.

    It is made anew in every process, in a folder that is gone afterwards: that takes less than a second,
    and nobody else's code can stand in its place.
    """
    compiler = next((c for c in map(shutil.which, _COMPILERS) if c), None)
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "sums.so"
        try:
            subprocess.run(
                [compiler, *FLAGS, str(SOURCE), "-o", str(made)],
                check=True,
                capture_output=True,
                timeout=_TIMEOUT_S,
            )
            return ctypes.CDLL(str(made))
        except (OSError, subprocess.SubprocessError):
            return None


def takes(tensors: Sequence[Tensor]) -> bool:
    """Whether the kernel can read and write ``tensors``: dense vectors in host memory."""
    return all(t.dtype in KINDS and t.device.type == "cpu" and t.is_contiguous() for t in tensors)


def weighted_sums(
    kernel: ctypes.CDLL,
    sources: Sequence[Tensor],
    outs: Sequence[Tensor],
    terms: Sequence[Sequence[tuple[int, float]]],
    start: int,
    stop: int,
) -> bool:
    """Elements [start, stop) of Σ weight·source into each of ``outs``, vectors that it :func:`takes`.

    False where a result is NaN, or there is no memory: what it wrote is then not to be relied on.
    """
    ends = np.cumsum([0, *(len(t) for t in terms)], dtype=np.int32)
    flat = [t for each in terms for t in each]
    arrays = (
        _addresses(sources),
        _kinds(sources),
        ends,
        np.array([number for number, _ in flat], dtype=np.int32),
        np.array([weight for _, weight in flat], dtype=np.float64).astype(np.float32),
        _addresses(outs),
        _kinds(outs),
    )
    source, kind, first, term, weight, out, out_kind = (
        ctypes.c_void_p(a.ctypes.data) for a in arrays
    )
    status = kernel.weighted_sums(
        ctypes.c_long(start),
        ctypes.c_long(stop),
        ctypes.c_int(len(sources)),
        source,
        kind,
        ctypes.c_int(len(outs)),
        first,
        term,
        weight,
        out,
        out_kind,
    )
    return int(status) == 0


def _addresses(tensors: Sequence[Tensor]) -> NDArray[np.uintp]:
    return np.array([t.data_ptr() for t in tensors], dtype=np.uintp)


def _kinds(tensors: Sequence[Tensor]) -> NDArray[np.int32]:
    return np.array([KINDS[t.dtype] for t in tensors], dtype=np.int32)
