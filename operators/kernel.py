"""Weighted sums at the speed of memory, compiled by numba when they are first wanted.

By torch alone a sum makes several passes over the cache for each term. Here each element is read once,
as it is stored, every product and every sum is rounded to float32 (LLVM contracts nothing unless asked
to), and what is made goes past the caches to memory: bit for bit what :mod:`operators.sums` does with
torch, at the speed of a copy.

Importing this module imports numba and starts no compiler; the first call of :func:`weighted_sums` does,
or finds what was compiled before in numba's cache.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

CHUNK = 256  # elements made at a time: what many sums share stays in the first-level cache
AHEAD = 1024  # bytes between what is used and what is fetched
LINE = 64  # bytes
FLOAT32, BFLOAT16 = 0, 1


_typed: Callable[..., Any] = intrinsic
_compiled: Callable[..., Any] = njit(nogil=True)
# Compiling takes seconds: once for each processor and installation, as numba caches it.
_kept: Callable[..., Any] = njit(nogil=True, cache=True)


def _pointer(kind: Any) -> Any:
    @_typed
    def at(context: Any, address: Any) -> Any:
        def make(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(types.CPointer(kind)))

        return types.CPointer(kind)(types.uintp), make

    return at


_floats, _words, _halves = (_pointer(k) for k in (types.float32, types.uint32, types.uint16))


@_typed
def _fetch(context: Any, address: Any) -> Any:
    """Have the line at ``address`` brought to the cache; any address will do."""

    def make(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        known = builder.module.globals.get("llvm.prefetch.p0")
        call = known or ir.Function(builder.module, kind, "llvm.prefetch.p0")
        read, near, data = number(0), number(3), number(1)
        builder.call(call, [builder.inttoptr(arguments[0], byte), read, near, data])
        return context.get_dummy_value()

    return types.void(types.uintp), make


@_typed
def _stream(context: Any, to: Any, source: Any) -> Any:
    """Copy a line to ``to``, which is at the start of one, past the caches."""

    def make(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        line = ir.VectorType(ir.FloatType(), LINE // 4).as_pointer()
        target, origin = (builder.inttoptr(a, line) for a in arguments)
        store = builder.store(builder.load(origin, align=4), target, align=LINE)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp), make


@_typed
def _fence(context: Any) -> Any:
    """Other threads see what was streamed."""

    def make(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), make


# Inside, arrays are passed by address: to count references to them takes locked instructions, which wait
# until what was streamed has reached memory.


@_compiled
def _wide(half):  # type: ignore[no-untyped-def]
    return np.uint32(np.uint32(half) << np.uint32(16)).view(np.float32)


@_compiled
def _add_one(made, source, kind, weight, count):  # type: ignore[no-untyped-def]
    total = _floats(made)
    if kind == BFLOAT16:
        halves = _halves(source)
        for e in range(count):
            total[e] += weight * _wide(halves[e])
    else:
        floats = _floats(source)
        for e in range(count):
            total[e] += weight * floats[e]


@_compiled
def _add_two(made, a, b, kind, p, q, count):  # type: ignore[no-untyped-def]
    """Two terms, one after the other: ``made`` is passed over once."""
    total = _floats(made)
    if kind == BFLOAT16:
        first, second = _halves(a), _halves(b)
        for e in range(count):
            total[e] = total[e] + p * _wide(first[e]) + q * _wide(second[e])
    else:
        one, two = _floats(a), _floats(b)
        for e in range(count):
            total[e] = total[e] + p * one[e] + q * two[e]


@_compiled
def _add_four(made, a, b, c, d, p, q, r, s, count):  # type: ignore[no-untyped-def]
    """Four terms of float32 sources."""
    total, one, two, three, four = _floats(made), _floats(a), _floats(b), _floats(c), _floats(d)
    for e in range(count):
        total[e] = total[e] + p * one[e] + q * two[e] + r * three[e] + s * four[e]


@_compiled
def _has_nan(made, count):  # type: ignore[no-untyped-def]
    bits, most = _words(made), np.uint32(0)
    for e in range(count):
        most = max(most, bits[e] & np.uint32(0x7FFFFFFF))
    return most > np.uint32(0x7F800000)


@_compiled
def _narrowed(made, to):  # type: ignore[no-untyped-def]
    """A chunk rounded to bfloat16, to the nearest and ties to even; whether there is a NaN in it."""
    bits, halves, most = _words(made), _halves(to), np.uint32(0)
    for e in range(CHUNK):
        most = max(most, bits[e] & np.uint32(0x7FFFFFFF))
        odd = (bits[e] >> np.uint32(16)) & np.uint32(1)
        halves[e] = np.uint16((bits[e] + np.uint32(0x7FFF) + odd) >> np.uint32(16))
    return most > np.uint32(0x7F800000)


@_compiled
def _put(to, source, size):  # type: ignore[no-untyped-def]
    if size % LINE == 0 and to % np.uintp(LINE) == np.uintp(0):
        for byte in range(0, size, LINE):
            _stream(to + np.uintp(byte), source + np.uintp(byte))
    else:
        target, origin = _halves(to), _halves(source)
        for half in range(size // 2):
            target[half] = origin[half]


@_kept
def weighted_sums(start, stop, source, kind, first, term, weight, out, out_kind, buffer):  # type: ignore[no-untyped-def]
    """Elements [start, stop) of 0 + Σ weight·source for every sum, in float32, cast once.

    Args:
        source, kind: address of each source, (sources,) uintp, and FLOAT32 or BFLOAT16.
        first: sum s has the terms first[s] to first[s + 1], (sums + 1,).
        term, weight: number of a source, and its weight in float32.
        out, out_kind: as of the sources, (sums,).
        buffer: to work in, (2 + sources) * CHUNK float32, all 0. The caller's: an array of this
            function's own would be freed once its address was taken.

    Returns:
        Whether a result is NaN, of which the bits are not those that torch gives.
    """
    sums, shared, nan = len(out), len(out) > 1, False
    made = np.uintp(buffer.ctypes.data)
    narrow, wide = made + np.uintp(4 * CHUNK), made + np.uintp(8 * CHUNK)
    here, here_kind = np.zeros(len(source), np.uintp), kind.copy()
    for at in range(start, stop, CHUNK):
        count = min(CHUNK, stop - at)
        for k in range(len(source)):
            size = 2 if kind[k] == BFLOAT16 else 4
            here[k] = source[k] + np.uintp(at * size)
            for byte in range(0, count * size, LINE):
                _fetch(here[k] + np.uintp(byte + AHEAD))
            if kind[k] == BFLOAT16 and shared:  # widened once for all sums
                row = wide + np.uintp(4 * CHUNK * k)
                floats, halves = _floats(row), _halves(here[k])
                for e in range(count):
                    floats[e] = _wide(halves[e])
                here[k], here_kind[k] = row, FLOAT32
        for s in range(sums):
            floats = _floats(made)
            for e in range(CHUNK):
                floats[e] = np.float32(0.0)
            t, end = first[s], first[s + 1]
            while t < end:
                a = term[t]
                if shared and t + 3 < end:
                    b, c, d = term[t + 1], term[t + 2], term[t + 3]
                    p, q, r, u = weight[t], weight[t + 1], weight[t + 2], weight[t + 3]
                    _add_four(made, here[a], here[b], here[c], here[d], p, q, r, u, count)
                    t += 4
                elif t + 1 < end and here_kind[term[t + 1]] == here_kind[a]:
                    b = term[t + 1]
                    _add_two(made, here[a], here[b], here_kind[a], weight[t], weight[t + 1], count)
                    t += 2
                else:
                    _add_one(made, here[a], here_kind[a], weight[t], count)
                    t += 1
            if out_kind[s] == BFLOAT16:
                nan |= _narrowed(made, narrow)
                _put(out[s] + np.uintp(2 * at), narrow, 2 * count)
            else:
                nan |= _has_nan(made, count)
                _put(out[s] + np.uintp(4 * at), made, 4 * count)
    _fence()
    return nan
