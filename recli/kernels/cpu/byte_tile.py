"""Dot products of rows of bytes, a register tile of users by items at a time (a numba intrinsic).

A byte takes a quarter of the bandwidth of a float32, and a machine with VNNI multiplies and adds four times as many of
them in an instruction. One tile's products never leave the registers unless they reach the user's threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from recli.kernels.cpu.simd import load, shuffle, splat, store

LANES = 16  # items, or int32 sums, in a vector, whatever the machine's registers
USER_LEVELS = 127  # users' bytes are signed: -127 to 127

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_SUMS = ir.VectorType(_I32, LANES)
_Multiply = Callable[[Any, Any, Any, Any], Any]


class Shape(NamedTuple):
    """How this machine multiplies bytes. users, vectors: the register tile, in rows and vectors of 16 items;
    item_levels: items' bytes are unsigned, from 1 to 2 item_levels + 1; multiply(builder, sums, items, user): sums and
    sums of four products.
    """

    users: int
    vectors: int
    item_levels: int
    multiply: _Multiply


def _call(b: Any, name: str, result: Any, *arguments: Any) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return b.call(cgutils.get_or_insert_function(b.module, kind, name), list(arguments))


def _vector(kind: Any, count: int) -> Any:
    return ir.VectorType(kind, count)


def _in_parts(b: Any, bits: int, sums: Any, items: Any, user: Any, multiply: _Multiply) -> Any:
    """multiply on registers of so many bits: all lanes, or half of them."""
    lanes = bits // 32
    if lanes == LANES:
        return multiply(b, sums, items, user)
    halves = ([*range(lanes)], [*range(lanes, LANES)])
    low, high = (multiply(b, *(shuffle(b, vector, vector, half) for vector in (sums, items, user))) for half in halves)
    return shuffle(b, low, high, [*range(LANES)])


def _vnni(bits: int) -> _Multiply:
    def multiply(b: Any, sums: Any, items: Any, user: Any) -> Any:
        kind = _vector(_I8, bits // 8)
        arguments = sums, b.bitcast(items, kind), b.bitcast(user, kind)
        return _call(b, f"llvm.x86.avx512.vpdpbusd.{bits}", sums.type, *arguments)

    return lambda b, sums, items, user: _in_parts(b, bits, sums, items, user, multiply)


def _madd(bits: int) -> _Multiply:
    """Pairs of products in int16, which they must not overflow: hence 63 levels for items; then pairs of those."""
    bytes_, words = ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd")
    if bits == 512:
        bytes_, words = ("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512")

    def multiply(b: Any, sums: Any, items: Any, user: Any) -> Any:
        kind, pairs = _vector(_I8, bits // 8), _vector(_I16, bits // 16)
        products = _call(b, bytes_, pairs, b.bitcast(items, kind), b.bitcast(user, kind))
        ones = ir.Constant(pairs, [1] * (bits // 16))
        return b.add(sums, _call(b, words, sums.type, products, ones))

    return lambda b, sums, items, user: _in_parts(b, bits, sums, items, user, multiply)


def _plain(b: Any, sums: Any, items: Any, user: Any) -> Any:
    for byte in range(4):
        up = ir.Constant(_SUMS, [24 - 8 * byte] * LANES)
        down = ir.Constant(_SUMS, [24] * LANES)
        sums = b.add(sums, b.mul(b.lshr(b.shl(items, up), down), b.ashr(b.shl(user, up), down)))
    return sums


_SHAPES = {  # by what the processor must know, best first
    "avx512vnni": Shape(6, 4, 127, _vnni(512)),
    "avxvnni": Shape(3, 2, 127, _vnni(256)),
    "avx512bw": Shape(6, 4, 63, _madd(512)),
    "avx2": Shape(3, 2, 63, _madd(256)),
    "": Shape(3, 2, 127, _plain),
}


def _shape_here() -> Shape:
    features = dict(llvm.get_host_cpu_features())
    if config.CPU_NAME or config.CPU_FEATURES is not None:  # numba compiles for another processor than this one
        features = {name[1:]: name[0] == "+" for name in (config.CPU_FEATURES or "").split(",") if name}
    return next(shape for name, shape in _SHAPES.items() if not name or features.get(name))


SHAPE = _shape_here()
USERS, ITEMS, ITEM_LEVELS = SHAPE.users, SHAPE.vectors * LANES, SHAPE.item_levels


@intrinsic
def byte_tile(typing_context: Any, users: Any, items: Any, groups: Any, least: Any, sums: Any, hits: Any) -> Any:
    """The dot products of USERS rows of signed bytes with ITEMS rows of unsigned ones, of 4 groups bytes each.

    All arguments but groups are addresses. users: uint64[USERS], addresses of rows int8[4 groups]. items: uint8[groups,
    ITEMS, 4]. least: int32[USERS]. sums: int32[USERS, ITEMS] (OUT). hits: uint64[USERS] (OUT), a bit for each item
    whose sum is at least the user's. Returns whether any bit is set.
    """
    signature = types.boolean(*[types.uintp] * 2, types.intp, *[types.uintp] * 3)

    def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
        users, items, groups, least, sums, hits = args
        rows = [load(b, users, ir.Constant(_I64, u), _I64) for u in range(USERS)]
        zero = ir.Constant(_SUMS, [0] * LANES)
        totals = [[cgutils.alloca_once_value(b, zero) for _ in range(SHAPE.vectors)] for _ in rows]
        with cgutils.for_range_slice(b, ir.Constant(_I64, 0), groups, ir.Constant(_I64, 1), intp=_I64) as (group, _):
            first = b.mul(group, ir.Constant(_I64, ITEMS))
            vectors = [load(b, items, b.add(first, ir.Constant(_I64, LANES * v)), _SUMS) for v in range(SHAPE.vectors)]
            for row, mine in zip(rows, totals, strict=True):
                user = splat(b, load(b, row, group, _I32), _SUMS)
                for vector, total in zip(vectors, mine, strict=True):
                    b.store(SHAPE.multiply(b, b.load(total), vector, user), total)
        any_ = ir.Constant(_I64, 0)
        for u, mine in enumerate(totals):
            enough, bits = splat(b, load(b, least, ir.Constant(_I64, u), _I32), _SUMS), ir.Constant(_I64, 0)
            for v, total in enumerate(mine):
                value = b.load(total)
                store(b, value, sums, ir.Constant(_I64, u * ITEMS + v * LANES))
                found = b.zext(b.bitcast(b.icmp_signed(">=", value, enough), _I16), _I64)
                bits = b.or_(bits, b.shl(found, ir.Constant(_I64, v * LANES)))
            store(b, bits, hits, ir.Constant(_I64, u))
            any_ = b.or_(any_, bits)
        return b.icmp_unsigned("!=", any_, ir.Constant(_I64, 0))

    return signature, generate


@intrinsic
def lowest_bit(typing_context: Any, bits: Any) -> Any:
    """The number of the lowest bit that is set in a uint64 (64 if none)."""
    signature = types.int64(types.uint64)

    def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return signature, generate
