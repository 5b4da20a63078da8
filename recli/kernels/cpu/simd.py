"""Numba intrinsics that emit vector loops over four rows at a time: C++ speed from pure Python, no compiler at install.

LLVM's own vectoriser loses on the short loops of a half-sweep (rank / 16 iterations): run-time alias checks before
every update and wrap-around checks on computed indices. These emit the loop body directly. Addresses come from
`array.ctypes.data`, so nothing checks bounds: callers do. Vectors are 16 floats wide whatever the machine has; LLVM
splits them where registers are narrower. Row lengths are multiples of WIDTH (callers pad with zero columns).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WIDTH = 16
_F16, _F32, _F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
_I32, _I64 = ir.IntType(32), ir.IntType(64)
_VECTOR, _HALVES = ir.VectorType(_F32, WIDTH), ir.VectorType(_F16, WIDTH)


def pointer(b: Any, address: Any, offset: Any, kind: Any) -> Any:
    """Of a value so many elements behind an address."""
    element = kind.element if isinstance(kind, ir.VectorType) else kind
    return b.bitcast(b.gep(b.inttoptr(address, element.as_pointer()), [offset]), kind.as_pointer())


def load(b: Any, address: Any, offset: Any, kind: Any = _VECTOR) -> Any:
    value = b.load(pointer(b, address, offset, kind))
    value.align = 2 if kind is _HALVES else 4
    return value


def store(b: Any, value: Any, address: Any, offset: Any) -> None:
    b.store(value, pointer(b, address, offset, value.type)).align = 2 if value.type is _HALVES else 4


def shuffle(b: Any, x: Any, y: Any, lanes: list[int]) -> Any:
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(_I32, len(lanes)), lanes))


def splat(b: Any, x: Any, kind: Any = _VECTOR) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    return shuffle(b, b.insert_element(undefined, x, ir.Constant(_I32, 0)), undefined, [0] * kind.count)


def _fma(b: Any, x: Any, y: Any, z: Any) -> Any:
    function = ir.FunctionType(x.type, [x.type] * 3)
    return b.call(cgutils.get_or_insert_function(b.module, function, f"llvm.fma.v{WIDTH}f32"), [x, y, z])


def _sum_lanes(b: Any, vectors: list[Any]) -> list[Any]:
    """Horizontal sums of four vectors together: halve each to four lanes, transpose, add (a third fewer shuffles than
    one by one).
    """
    lanes = WIDTH
    while lanes > 4:
        half = lanes // 2
        vectors = [
            b.fadd(shuffle(b, v, v, list(range(half))), shuffle(b, v, v, list(range(half, lanes)))) for v in vectors
        ]
        lanes = half
    v0, v1, v2, v3 = vectors
    low, high = shuffle(b, v0, v1, [0, 4, 1, 5]), shuffle(b, v0, v1, [2, 6, 3, 7])
    pair01 = b.fadd(low, high)  # (v0: 0+2, v1: 0+2, v0: 1+3, v1: 1+3)
    low, high = shuffle(b, v2, v3, [0, 4, 1, 5]), shuffle(b, v2, v3, [2, 6, 3, 7])
    pair23 = b.fadd(low, high)
    total = b.fadd(shuffle(b, pair01, pair23, [0, 1, 4, 5]), shuffle(b, pair01, pair23, [2, 3, 6, 7]))
    return [b.extract_element(total, ir.Constant(_I32, i)) for i in range(4)]


def _dot4(b: Any, rows: list[Any], p: Any, rank: Any, read: Any = load, copy_to: Any = None) -> list[Any]:
    sums = [cgutils.alloca_once_value(b, ir.Constant(_VECTOR, [0.0] * WIDTH)) for _ in rows]
    with cgutils.for_range_slice(b, ir.Constant(_I64, 0), rank, ir.Constant(_I64, WIDTH), intp=_I64) as (k, _):
        vector = load(b, p, k)
        for i, row in enumerate(rows):
            loaded = read(b, row, k)
            if copy_to is not None:
                store(b, loaded, copy_to, b.add(k, b.mul(rank, ir.Constant(_I64, i))))
            b.store(_fma(b, loaded, vector, b.load(sums[i])), sums[i])
    return _sum_lanes(b, [b.load(s) for s in sums])


@intrinsic
def dot4(typing_context: Any, y0: Any, y1: Any, y2: Any, y3: Any, p: Any, rank: Any) -> Any:
    """(y0.p, y1.p, y2.p, y3.p) for float32[rank] rows at four addresses and p float32[rank] at an address."""
    signature = types.UniTuple(types.float32, 4)(*[types.uintp] * 5, types.intp)

    def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
        *rows, p, rank = args
        return context.make_tuple(b, sig.return_type, _dot4(b, rows, p, rank))

    return signature, generate


@intrinsic
def gather_dot4(typing_context: Any, y0: Any, y1: Any, y2: Any, y3: Any, z: Any, p: Any, rank: Any) -> Any:
    """As dot4, and copies the four rows to z float32[4, rank] (OUT) on the way: each scattered row is fetched once."""
    signature = types.UniTuple(types.float32, 4)(*[types.uintp] * 6, types.intp)

    def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
        *rows, z, p, rank = args
        return context.make_tuple(b, sig.return_type, _dot4(b, rows, p, rank, copy_to=z))

    return signature, generate


@intrinsic
def gather_halves_dot4(
    typing_context: Any, y0: Any, y1: Any, y2: Any, y3: Any, z: Any, p: Any, rank: Any, scale: Any
) -> Any:
    """As gather_dot4 of rows float16[rank] times a scale."""
    signature = types.UniTuple(types.float32, 4)(*[types.uintp] * 6, types.intp, types.float32)

    def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
        *rows, z, p, rank, scale = args
        factor = splat(b, scale)

        def read(b: Any, row: Any, k: Any) -> Any:
            return b.fmul(b.fpext(load(b, row, k, _HALVES), _VECTOR), factor)

        return context.make_tuple(b, sig.return_type, _dot4(b, rows, p, rank, read, copy_to=z))

    return signature, generate


@intrinsic
def store_halves(typing_context: Any, y: Any, z: Any, rank: Any, scale: Any) -> Any:
    """z float16[rank] (OUT) = scale times y float32[rank], at addresses."""
    signature = types.void(*[types.uintp] * 2, types.intp, types.float32)

    def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
        y, z, rank, scale = args
        factor = splat(b, scale)
        with cgutils.for_range_slice(b, ir.Constant(_I64, 0), rank, ir.Constant(_I64, WIDTH), intp=_I64) as (k, _):
            halves = b.fptrunc(b.fmul(load(b, y, k), factor), _HALVES)
            store(b, halves, z, k)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def axpy4(
    typing_context: Any, y0: Any, y1: Any, y2: Any, y3: Any, q: Any, rank: Any, a0: Any, a1: Any, a2: Any, a3: Any
) -> Any:
    """q += a0 y0 + a1 y1 + a2 y2 + a3 y3; float32[rank] rows at addresses, q is IN/OUT."""
    signature = types.void(*[types.uintp] * 5, types.intp, *[types.float32] * 4)

    def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
        rows, q, rank, scales = args[:4], args[4], args[5], [splat(b, a) for a in args[6:]]
        with cgutils.for_range_slice(b, ir.Constant(_I64, 0), rank, ir.Constant(_I64, WIDTH), intp=_I64) as (k, _):
            total = load(b, q, k)
            for row, scale in zip(rows, scales, strict=True):
                total = _fma(b, scale, load(b, row, k), total)
            store(b, total, q, k)
        return context.get_dummy_value()

    return signature, generate


_LANES = 8
_DOUBLES = ir.VectorType(_F64, _LANES)


@intrinsic
def dot_exact(typing_context: Any, p: Any, q: Any, rank: Any) -> Any:
    """The float64 dot product of float32[rank] rows at two addresses in the order that kernels/spec.py defines; rank a
    multiple of 8.

    Products of float32 are exact in float64, so with or without a fused multiply-add the result is the same on every
    machine."""
    signature = types.float64(types.uintp, types.uintp, types.intp)

    def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
        p, q, rank = args
        total = cgutils.alloca_once_value(b, ir.Constant(_DOUBLES, [0.0] * _LANES))
        with cgutils.for_range_slice(b, ir.Constant(_I64, 0), rank, ir.Constant(_I64, _LANES), intp=_I64) as (k, _):
            x, y = (b.fpext(load(b, a, k, ir.VectorType(_F32, _LANES)), _DOUBLES) for a in (p, q))
            b.store(b.fadd(b.load(total), b.fmul(x, y)), total)
        lanes, v = _LANES, b.load(total)
        while lanes > 1:
            half = lanes // 2
            v = b.fadd(shuffle(b, v, v, list(range(half))), shuffle(b, v, v, list(range(half, lanes))))
            lanes = half
        return b.extract_element(v, ir.Constant(_I32, 0))

    return signature, generate


@intrinsic
def prefetch(typing_context: Any, p: Any, size: Any) -> Any:
    """Asks for `size` bytes from an address on, which will soon be read."""
    signature = types.void(types.uintp, types.uintp)

    def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
        how = [ir.Constant(_I32, value) for value in (0, 3, 1)]  # to read, again, data
        with cgutils.for_range_slice(b, ir.Constant(_I64, 0), args[1], ir.Constant(_I64, 64), intp=_I64) as (k, _):
            b.call(function, [b.gep(b.inttoptr(args[0], byte), [k]), *how])
        return context.get_dummy_value()

    return signature, generate
