"""Weighted sums at the speed of memory, compiled by numba when they are first wanted.

By torch alone a sum makes several passes over the cache for each term. Here each element is read once,
as it is stored, every product and every sum is rounded to float32 (LLVM contracts nothing unless asked
to), and what is made goes past the caches to memory: bit for bit what :mod:`operators.build.sums` does with
torch, at the speed of a copy.

Plain numba loops would do without LLVM's vectors, prefetches and stores past the caches, and give the same
bits; on 303M parameters they took 1.15 to 1.33 times the processor time (``benchmarks/birth.py --kernels``).

Importing this module imports numba and starts no compiler; :func:`compile_once` does, or finds what was
compiled before in numba's cache.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

CHUNK = 256  # elements made at a time: what many sums share stays in the first-level cache
AHEAD = 1024  # bytes between what is used and what is fetched
STRIP = 64  # elements summed in registers
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


floats_at, words_at, halves_at = (_pointer(k) for k in (types.float32, types.uint32, types.uint16))


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


def _summing(kind: int) -> Any:
    @_typed
    def sum_strip(context: Any, to: Any, table: Any, weights: Any, terms: Any, skip: Any) -> Any:
        """Σ weight·source of a strip in registers, term after term; ``skip`` bytes into each source."""

        def make(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            to, table, weights, terms, skip = arguments
            number, single = ir.IntType(64), ir.FloatType()
            strip, halves = ir.VectorType(single, STRIP), ir.VectorType(ir.IntType(16), STRIP)
            words = ir.VectorType(ir.IntType(32), STRIP)
            total = cgutils.alloca_once_value(builder, ir.Constant(strip, None))
            table = builder.inttoptr(table, number.as_pointer())
            weights = builder.inttoptr(weights, single.as_pointer())
            with cgutils.for_range(builder, terms) as loop:
                address = builder.add(builder.load(builder.gep(table, [loop.index])), skip)
                if kind == BFLOAT16:
                    stored = builder.load(builder.inttoptr(address, halves.as_pointer()), align=2)
                    high = ir.Constant(words, [16] * STRIP)
                    source = builder.bitcast(builder.shl(builder.zext(stored, words), high), strip)
                else:
                    source = builder.load(builder.inttoptr(address, strip.as_pointer()), align=4)
                weight = builder.load(builder.gep(weights, [loop.index]))
                first = builder.insert_element(ir.Constant(strip, None), weight, ir.IntType(32)(0))
                every = builder.shuffle_vector(first, first, ir.Constant(words, None))
                product = builder.fmul(source, every)
                builder.store(builder.fadd(builder.load(total), product), total)
            target = builder.inttoptr(to, strip.as_pointer())
            builder.store(builder.load(total), target, align=4)
            return context.get_dummy_value()

        return types.void(*[types.uintp] * 5), make

    return sum_strip


_sum_floats, _sum_halves = _summing(FLOAT32), _summing(BFLOAT16)

# Inside, arrays are passed by address: to count references to them takes locked instructions, which wait
# until what was streamed has reached memory.


@_compiled
def _copy_wide(to, source, kind, count):  # type: ignore[no-untyped-def]
    target = words_at(to)
    if kind == BFLOAT16:
        halves = halves_at(source)
        for e in range(count):
            target[e] = np.uint32(halves[e]) << np.uint32(16)
    else:
        words = words_at(source)
        for e in range(count):
            target[e] = words[e]


@_compiled
def _has_nan(made, count):  # type: ignore[no-untyped-def]
    bits, most = words_at(made), np.uint32(0)
    for e in range(count):
        most = max(most, bits[e] & np.uint32(0x7FFFFFFF))
    return most > np.uint32(0x7F800000)


@_compiled
def _narrowed(made, to):  # type: ignore[no-untyped-def]
    """A chunk rounded to bfloat16, to the nearest and ties to even; whether there is a NaN in it."""
    bits, halves, most = words_at(made), halves_at(to), np.uint32(0)
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
        target, origin = halves_at(to), halves_at(source)
        for half in range(size // 2):
            target[half] = origin[half]


@_kept
def weighted_sums(start, stop, source, kind, first, term, weight, out, out_kind, table, buffer):  # type: ignore[no-untyped-def]
    """Elements [start, stop) of 0 + Σ weight·source for every sum, in float32, cast once.

    Args:
        source, kind: address of each source, (sources,) uintp, and FLOAT32 or BFLOAT16.
        first: sum s has the terms first[s] to first[s + 1], (sums + 1,).
        term, weight: number of a source, and its weight in float32.
        out, out_kind: as of the sources, (sums,).
        table, buffer: to work in: (terms,) uintp and ((2 + sources) * CHUNK,) float32, all 0. The
            caller's: arrays of this function's own would be freed once their addresses were taken.

    Returns:
        Whether a result is NaN, of which the bits are not those that torch gives.
    """
    nan, same = False, True
    for k in range(len(kind)):
        same &= kind[k] == kind[0]
    halves = same and kind[0] == BFLOAT16
    made = np.uintp(buffer.ctypes.data)
    narrow, wide = made + np.uintp(4 * CHUNK), made + np.uintp(8 * CHUNK)
    here = np.zeros(len(source), np.uintp)
    table_at, weight_at = np.uintp(table.ctypes.data), np.uintp(weight.ctypes.data)
    for at in range(start, stop, CHUNK):
        count = min(CHUNK, stop - at)
        # Widened once for all sums. Also where a whole strip would be read from beyond the end.
        widened = not same or count < CHUNK or (halves and len(out) > 1)
        for k in range(len(source)):
            size = 2 if kind[k] == BFLOAT16 else 4
            here[k] = source[k] + np.uintp(at * size)
            for byte in range(0, count * size, LINE):
                _fetch(here[k] + np.uintp(byte + AHEAD))
            if widened:
                row = wide + np.uintp(4 * CHUNK * k)
                _copy_wide(row, here[k], kind[k], count)
                here[k] = row
        for t in range(len(term)):
            table[t] = here[term[t]]
        for s in range(len(out)):
            here_at = table_at + np.uintp(8 * first[s])
            weights, terms = weight_at + np.uintp(4 * first[s]), np.uintp(first[s + 1] - first[s])
            for e in range(0, CHUNK, STRIP):
                to = made + np.uintp(4 * e)
                if halves and not widened:
                    _sum_halves(to, here_at, weights, terms, np.uintp(2 * e))
                else:
                    _sum_floats(to, here_at, weights, terms, np.uintp(4 * e))
            if out_kind[s] == BFLOAT16:
                nan |= _narrowed(made, narrow)
                _put(out[s] + np.uintp(2 * at), narrow, 2 * count)
            else:
                nan |= _has_nan(made, count)
                _put(out[s] + np.uintp(4 * at), made, 4 * count)
    _fence()
    return nan


def compile_once() -> None:
    """Have :func:`weighted_sums` ready; raises whatever numba, its compiler or its cache may raise."""
    addresses, numbers = np.zeros(0, np.uintp), np.zeros(1, np.int64)
    floats = np.zeros(0, np.float32)
    none = numbers[:0]
    weighted_sums(0, 0, addresses, none, numbers, none, floats, addresses, none, addresses, floats)
