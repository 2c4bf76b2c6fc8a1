"""The weighted sums of :mod:`operators.build.kernels` as plain numba loops, to be compared with it.

No vectors in registers, no prefetch and no stores past the caches: LLVM vectorises the loops by itself.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from operators.build.kernels import BFLOAT16, CHUNK, floats_at, halves_at, words_at

_compiled: Callable[..., Any] = njit(nogil=True)


@_compiled
def _widen(to, source, kind, count):  # type: ignore[no-untyped-def]
    if kind == BFLOAT16:
        words, halves = words_at(to), halves_at(source)
        for e in range(count):
            words[e] = np.uint32(halves[e]) << np.uint32(16)
        return to
    return source


@_compiled
def _add(total, source, weight, count):  # type: ignore[no-untyped-def]
    to, values = floats_at(total), floats_at(source)
    for e in range(count):
        to[e] = to[e] + values[e] * weight


@_compiled
def _add_halves(total, source, weight, count):  # type: ignore[no-untyped-def]
    to, halves = floats_at(total), halves_at(source)
    for e in range(count):
        to[e] = to[e] + np.uint32(np.uint32(halves[e]) << np.uint32(16)).view(np.float32) * weight


@_compiled
def _put(to, total, kind, count):  # type: ignore[no-untyped-def]
    """Cast and store; whether there is a NaN."""
    bits, most = words_at(total), np.uint32(0)
    for e in range(count):
        most = max(most, bits[e] & np.uint32(0x7FFFFFFF))
    if kind == BFLOAT16:
        halves = halves_at(to)
        for e in range(count):
            odd = (bits[e] >> np.uint32(16)) & np.uint32(1)
            halves[e] = np.uint16((bits[e] + np.uint32(0x7FFF) + odd) >> np.uint32(16))
    else:
        words = words_at(to)
        for e in range(count):
            words[e] = bits[e]
    return most > np.uint32(0x7F800000)


@_compiled
def weighted_sums(start, stop, source, kind, first, term, weight, out, out_kind, table, buffer):  # type: ignore[no-untyped-def]
    """As :func:`operators.build.kernels.weighted_sums`."""
    nan = False
    total = np.uintp(buffer.ctypes.data)
    wide = total + np.uintp(8 * CHUNK)
    here = np.zeros(len(source), np.uintp)
    for at in range(start, stop, CHUNK):
        count = min(CHUNK, stop - at)
        for k in range(len(source)):
            size = 2 if kind[k] == BFLOAT16 else 4
            here[k] = source[k] + np.uintp(at * size)
            if len(out) > 1:  # widened once for all sums
                here[k] = _widen(wide + np.uintp(4 * CHUNK * k), here[k], kind[k], count)
        for s in range(len(out)):
            made = floats_at(total)
            for e in range(count):
                made[e] = np.float32(0.0)
            for t in range(first[s], first[s + 1]):
                if len(out) == 1 and kind[term[t]] == BFLOAT16:
                    _add_halves(total, here[term[t]], weight[t], count)
                else:
                    _add(total, here[term[t]], weight[t], count)
            size = 2 if out_kind[s] == BFLOAT16 else 4
            nan |= _put(out[s] + np.uintp(at * size), total, out_kind[s], count)
    return nan
