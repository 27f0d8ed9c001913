"""Sixteen float32 lanes as one numba value.

LLVM vectorises plain loops well only when it can prove that nothing overlaps; the blending loops are too tangled
for that. Here a vector of sixteen lanes is a value of its own (``Lanes``), with the usual operators, so that a
kernel reads like scalar code and compiles to vector instructions on every processor: LLVM splits the sixteen lanes
into whatever the machine has (one AVX-512 register, two AVX, four SSE or NEON).

Only functions decorated with :func:`diffsplat.render.cpu_kernels.compilation_cache.kernel` can call what is defined
here. Scalars mix freely with lanes. Array accesses in this module are *flat and unchecked*: an index counts elements
from the first one of a C-contiguous array, and staying inside is the caller's duty.
"""

# The arguments of code generators are numba's, and most generators need only some of them.
# ruff: noqa: ARG001

import operator
from collections.abc import Callable
from typing import Any

import numba.extending
from llvmlite import ir
from numba import types
from numba.extending import (
    lower_builtin,
    models,
    register_model,
    type_callable,
)

LANES = 16

_FLOAT = ir.FloatType()
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INT_VECTOR = ir.VectorType(_INT32, LANES)
_BIT_VECTOR = ir.VectorType(ir.IntType(1), LANES)
_HALF_VECTOR = ir.VectorType(_FLOAT, LANES // 2)
_MASK_INT = ir.IntType(LANES)
# NaN and infinity keep their meaning (a comparison with NaN is False, which culls the lane).
_FLAGS = ("contract", "nsz", "arcp")

# Polynomial for 2**f on [-1/2, 1/2]: least relative maximum error (9e-8) with the value 1 at 0, found by
# iteratively reweighted least squares.
_EXP2_COEFFICIENTS = (
    0.0013264727213757,
    0.009671512812496,
    0.0555073374482455,
    0.2402224208267768,
    0.6931469775973307,
)


def intrinsic(function: Callable[..., Any]) -> Any:
    """Make a function that kernels can call from one that types the call and generates its code."""
    return numba.extending.intrinsic(function)


class LanesType(types.Type):
    """Type of sixteen float32 lanes."""

    def __init__(self) -> None:
        super().__init__(name="Lanes16Float32")


class MaskType(types.Type):
    """Type of sixteen booleans, the result of comparing lanes."""

    def __init__(self) -> None:
        super().__init__(name="Lanes16Bool")


LANES_TYPE = LanesType()
MASK_TYPE = MaskType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, frontend_type: Any) -> None:
        super().__init__(manager, frontend_type, _VECTOR)


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, frontend_type: Any) -> None:
        super().__init__(manager, frontend_type, _BIT_VECTOR)


def _broadcast(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_INT_VECTOR, [0] * LANES))


def _constant(value: float) -> Any:
    return ir.Constant(_VECTOR, [float(value)] * LANES)


def _int_constant(value: int) -> Any:
    return ir.Constant(_INT_VECTOR, [value] * LANES)


def _declared(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    known = builder.module.globals.get(name)
    return known or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


def _multiply_add(builder: Any, x: Any, y: Any, z: Any) -> Any:
    function = _declared(builder, "llvm.fmuladd.v16f32", _VECTOR, [_VECTOR] * 3)
    return builder.call(function, [x, y, z], fastmath=_FLAGS)


def _as_lanes(context: Any, builder: Any, value: Any, value_type: Any) -> Any:
    if isinstance(value_type, LanesType):
        return value
    return _broadcast(builder, context.cast(builder, value, value_type, types.float32))


def _mixes_lanes(*argument_types: Any) -> bool:
    kinds = (LanesType, types.Number)
    return LANES_TYPE in argument_types and all(isinstance(kind, kinds) for kind in argument_types)


def _define_operator(function: Callable[..., Any], result: Any, emit: Callable[[Any, Any, Any], Any]) -> None:
    """Give a Python operator a meaning for lanes with lanes, and for lanes with a scalar on either side."""

    @type_callable(function)
    def type_operator(context: Any) -> Callable[..., Any]:
        def typer(left: Any, right: Any) -> Any:
            return result if _mixes_lanes(left, right) else None

        return typer

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right = (
            _as_lanes(context, builder, value, kind)
            for value, kind in zip(arguments, signature.args, strict=True)
        )
        return emit(builder, left, right)

    for left, right in (
        (LanesType, LanesType),
        (LanesType, types.Number),
        (types.Number, LanesType),
    ):
        lower_builtin(function, left, right)(lower)


_define_operator(operator.add, LANES_TYPE, lambda builder, x, y: builder.fadd(x, y, flags=_FLAGS))
_define_operator(operator.sub, LANES_TYPE, lambda builder, x, y: builder.fsub(x, y, flags=_FLAGS))
_define_operator(operator.mul, LANES_TYPE, lambda builder, x, y: builder.fmul(x, y, flags=_FLAGS))
_define_operator(operator.truediv, LANES_TYPE, lambda builder, x, y: builder.fdiv(x, y, flags=_FLAGS))
_define_operator(operator.ge, MASK_TYPE, lambda builder, x, y: builder.fcmp_ordered(">=", x, y))
_define_operator(operator.gt, MASK_TYPE, lambda builder, x, y: builder.fcmp_ordered(">", x, y))
_define_operator(operator.le, MASK_TYPE, lambda builder, x, y: builder.fcmp_ordered("<=", x, y))
_define_operator(operator.lt, MASK_TYPE, lambda builder, x, y: builder.fcmp_ordered("<", x, y))


@type_callable(operator.and_)
def _type_mask_and(context: Any) -> Callable[..., Any]:
    def typer(left: Any, right: Any) -> Any:
        return MASK_TYPE if left == right == MASK_TYPE else None

    return typer


@lower_builtin(operator.and_, MaskType, MaskType)
def _lower_mask_and(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.and_(*arguments)


# --- making lanes ---------------------------------------------------------------------------------------------


def constant_lanes(values: list[float]) -> Any:
    """A kernel function without arguments that returns these sixteen numbers."""

    @intrinsic
    def lanes(typing_context: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return ir.Constant(_VECTOR, [float(value) for value in values])

        return LANES_TYPE(), generate

    return lanes


@intrinsic
def broadcast(typing_context: Any, value: Any) -> Any:
    """The scalar ``value`` in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _broadcast(
            builder,
            context.cast(builder, arguments[0], signature.args[0], types.float32),
        )

    return LANES_TYPE(value), generate


# --- arithmetic -----------------------------------------------------------------------------------------------


@intrinsic
def multiply_add(typing_context: Any, x: Any, y: Any, z: Any) -> Any:
    """``x * y + z``, fused where the processor can."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = (
            _as_lanes(context, builder, value, kind)
            for value, kind in zip(arguments, signature.args, strict=True)
        )
        return _multiply_add(builder, *lanes)

    return LANES_TYPE(x, y, z), generate


def _chooser(predicate: str) -> Any:
    @intrinsic
    def choose(typing_context: Any, x: Any, y: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            left, right = (
                _as_lanes(context, builder, value, kind)
                for value, kind in zip(arguments, signature.args, strict=True)
            )
            return builder.select(builder.fcmp_ordered(predicate, left, right), left, right)

        return LANES_TYPE(x, y), generate

    return choose


minimum = _chooser("<")
"""Lane-wise ``x if x < y else y``: a NaN in ``x`` gives ``y``."""
maximum = _chooser(">")
"""Lane-wise ``x if x > y else y``: a NaN in ``x`` gives ``y``."""


def _rounding(name: str) -> Any:
    @intrinsic
    def apply(typing_context: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.call(
                _declared(builder, f"llvm.{name}.v16f32", _VECTOR, [_VECTOR]),
                [arguments[0]],
            )

        return LANES_TYPE(LANES_TYPE), generate

    return apply


square_root = _rounding("sqrt")
floor = _rounding("floor")
ceil = _rounding("ceil")
absolute = _rounding("fabs")


@intrinsic
def negative_absolute(typing_context: Any, x: Any) -> Any:
    """``-|x|`` in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sign = _int_constant(-(2**31))
        return builder.bitcast(builder.or_(builder.bitcast(arguments[0], _INT_VECTOR), sign), _VECTOR)

    return LANES_TYPE(LANES_TYPE), generate


@intrinsic
def exp2(typing_context: Any, x: Any) -> Any:
    """``2**x`` for ``x`` in [-120, 0], relative error 2e-7."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # Truncation rounds towards zero; for x <= 0 that of x - 1/2 is the nearest whole number.
        whole = builder.fptosi(builder.fsub(arguments[0], _constant(0.5)), _INT_VECTOR)
        fraction = builder.fsub(arguments[0], builder.sitofp(whole, _VECTOR))
        power = _constant(_EXP2_COEFFICIENTS[0])
        for coefficient in (*_EXP2_COEFFICIENTS[1:], 1.0):
            power = _multiply_add(builder, power, fraction, _constant(coefficient))
        exponent = builder.shl(whole, _int_constant(23))
        return builder.bitcast(builder.add(builder.bitcast(power, _INT_VECTOR), exponent), _VECTOR)

    return LANES_TYPE(LANES_TYPE), generate


# --- masks ----------------------------------------------------------------------------------------------------


@intrinsic
def select(typing_context: Any, mask: Any, x: Any, y: Any) -> Any:
    """``x`` where ``mask``, ``y`` elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right = (
            _as_lanes(context, builder, value, kind)
            for value, kind in zip(arguments[1:], signature.args[1:], strict=True)
        )
        return builder.select(arguments[0], left, right)

    return LANES_TYPE(MASK_TYPE, x, y), generate


@intrinsic
def and_not(typing_context: Any, x: Any, y: Any) -> Any:
    """``x and not y`` of two masks."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.and_(
            arguments[0],
            builder.xor(arguments[1], ir.Constant(_BIT_VECTOR, [1] * LANES)),
        )

    return MASK_TYPE(MASK_TYPE, MASK_TYPE), generate


@intrinsic
def any_lane(typing_context: Any, mask: Any) -> Any:
    """Whether any lane of the mask is set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.icmp_unsigned(
            "!=", builder.bitcast(arguments[0], _MASK_INT), ir.Constant(_MASK_INT, 0)
        )

    return types.boolean(MASK_TYPE), generate


@intrinsic
def mask_bits(typing_context: Any, mask: Any) -> Any:
    """The mask as an integer, lane k in bit k."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(builder.bitcast(arguments[0], _MASK_INT), _INT64)

    return types.int64(MASK_TYPE), generate


@intrinsic
def lowest_bit(typing_context: Any, bits: Any) -> Any:
    """Position of the lowest set bit of a non-zero integer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = _declared(builder, "llvm.cttz.i64", _INT64, [_INT64, ir.IntType(1)])
        return builder.call(function, [arguments[0], ir.Constant(ir.IntType(1), 1)])

    return types.int64(types.int64), generate


# --- reductions -----------------------------------------------------------------------------------------------


@intrinsic
def lanes_maximum(typing_context: Any, x: Any) -> Any:
    """The largest of the sixteen lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = _declared(builder, "llvm.vector.reduce.fmax.v16f32", _FLOAT, [_VECTOR])
        return builder.call(function, [arguments[0]], fastmath=_FLAGS)

    return types.float32(LANES_TYPE), generate


def _halved(builder: Any, x: Any, y: Any, width: int) -> Any:
    """Sum the upper half of each group of ``width`` lanes onto its lower half, for x and y, and interleave them."""
    half = width // 2
    low = [group * width + lane for group in range(LANES // width) for lane in range(half)]
    lows = low + [LANES + lane for lane in low]
    highs = [lane + half for lane in lows]
    first = builder.shuffle_vector(x, y, ir.Constant(_INT_VECTOR, lows))
    second = builder.shuffle_vector(x, y, ir.Constant(_INT_VECTOR, highs))
    return builder.fadd(first, second, flags=_FLAGS)


@intrinsic
def sum_each(typing_context: Any, vectors: Any) -> Any:
    """The sums over the lanes of up to sixteen vectors: that of ``vectors[k]`` in lane k, zero in the rest."""
    if not isinstance(vectors, types.UniTuple):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        level = [builder.extract_value(arguments[0], k) for k in range(signature.args[0].count)]
        level += [None] * (LANES - len(level))
        width = LANES
        while len(level) > 1:
            pairs = zip(level[::2], level[1::2], strict=True)
            zero = _constant(0.0)
            level = [None if x is None else _halved(builder, x, y or zero, width) for x, y in pairs]
            width //= 2
        return level[0]

    return LANES_TYPE(vectors), generate


# --- memory ---------------------------------------------------------------------------------------------------


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index], inbounds=True)


@intrinsic
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """The element at a flat index."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(context, builder, signature.args[0], *arguments))

    return array.dtype(array, types.int64), generate


@intrinsic
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """Write the element at a flat index."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _pointer(context, builder, signature.args[0], *arguments[:2]))
        return context.get_dummy_value()

    return types.void(array, types.int64, array.dtype), generate


@intrinsic
def load_lanes(typing_context: Any, array: Any, index: Any) -> Any:
    """Sixteen consecutive elements of a float32 array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], *arguments)
        return builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)

    return LANES_TYPE(array, types.int64), generate


@intrinsic
def store_lanes(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """Write sixteen consecutive elements of a float32 array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], *arguments[:2])
        builder.store(arguments[2], builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, LANES_TYPE), generate


@intrinsic
def load_halves(typing_context: Any, array: Any, first: Any, second: Any) -> Any:
    """Eight consecutive elements from each of two flat indices."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        halves = []
        for index in arguments[1:]:
            pointer = _pointer(context, builder, signature.args[0], arguments[0], index)
            halves.append(builder.load(builder.bitcast(pointer, _HALF_VECTOR.as_pointer()), align=4))
        return builder.shuffle_vector(*halves, ir.Constant(_INT_VECTOR, list(range(LANES))))

    return LANES_TYPE(array, types.int64, types.int64), generate


@intrinsic
def store_halves(typing_context: Any, array: Any, first: Any, second: Any, value: Any) -> Any:
    """Write the lower eight lanes at the flat index ``first`` and the upper eight at ``second``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        half_indices = ir.VectorType(_INT32, LANES // 2)
        for part, index in enumerate(arguments[1:3]):
            lanes = [part * LANES // 2 + lane for lane in range(LANES // 2)]
            undefined = ir.Constant(_VECTOR, ir.Undefined)
            half = builder.shuffle_vector(arguments[3], undefined, ir.Constant(half_indices, lanes))
            pointer = _pointer(context, builder, signature.args[0], arguments[0], index)
            builder.store(half, builder.bitcast(pointer, _HALF_VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, LANES_TYPE), generate


@intrinsic
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of an element that will be read soon."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte_pointer = ir.IntType(8).as_pointer()
        function = _declared(builder, "llvm.prefetch.p0", ir.VoidType(), [byte_pointer, *[_INT32] * 3])
        pointer = _pointer(context, builder, signature.args[0], *arguments)
        read, keep, data = (ir.Constant(_INT32, value) for value in (0, 3, 1))
        builder.call(function, [builder.bitcast(pointer, byte_pointer), read, keep, data])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@intrinsic
def float_bits(typing_context: Any, value: Any) -> Any:
    """The bits of a float32; for positive numbers they sort as the numbers do."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(builder.bitcast(arguments[0], _INT32), _INT64)

    return types.int64(types.float32), generate


@intrinsic
def fetch_add(typing_context: Any, counter: Any, amount: Any) -> Any:
    """Add to the first element of an int64 array atomically, and return what it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", pointer, arguments[1], "monotonic")

    return types.int64(counter, types.int64), generate


# --- feature tuples: as many vectors as ``channels`` is long ----------------------------------------------------
# The length of a tuple is part of its type, so every loop over the features is unrolled at compile time.


def _tuple_of_lanes(count: int) -> Any:
    return types.UniTuple(LANES_TYPE, count)


def _pack(builder: Any, vectors: list[Any]) -> Any:
    packed = ir.Constant(ir.ArrayType(_VECTOR, len(vectors)), ir.Undefined)
    for k, vector in enumerate(vectors):
        packed = builder.insert_value(packed, vector, k)
    return packed


@intrinsic
def zeros_each(typing_context: Any, channels: Any) -> Any:
    """A zero vector for every channel."""
    if not isinstance(channels, types.UniTuple):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _pack(builder, [_constant(0.0)] * channels.count)

    return _tuple_of_lanes(channels.count)(channels), generate


@intrinsic
def load_each(typing_context: Any, array: Any, index: Any, channels: Any) -> Any:
    """Consecutive vectors of a float32 array, one for every channel."""
    if not isinstance(channels, types.UniTuple):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors = []
        for k in range(channels.count):
            offset = builder.add(arguments[1], ir.Constant(_INT64, k * LANES))
            pointer = _pointer(context, builder, signature.args[0], arguments[0], offset)
            vectors.append(builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=4))
        return _pack(builder, vectors)

    return _tuple_of_lanes(channels.count)(array, types.int64, channels), generate


@intrinsic
def store_each(typing_context: Any, array: Any, index: Any, vectors: Any) -> Any:
    """Write consecutive vectors of a float32 array."""
    if not isinstance(vectors, types.UniTuple):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for k in range(vectors.count):
            offset = builder.add(arguments[1], ir.Constant(_INT64, k * LANES))
            pointer = _pointer(context, builder, signature.args[0], arguments[0], offset)
            vector = builder.extract_value(arguments[2], k)
            builder.store(vector, builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, vectors), generate


@intrinsic
def broadcast_each(typing_context: Any, array: Any, index: Any, channels: Any) -> Any:
    """Consecutive elements of a float32 array, each broadcast to a vector of its own."""
    if not isinstance(channels, types.UniTuple):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors = []
        for k in range(channels.count):
            offset = builder.add(arguments[1], ir.Constant(_INT64, k))
            pointer = _pointer(context, builder, signature.args[0], arguments[0], offset)
            vectors.append(_broadcast(builder, builder.load(pointer)))
        return _pack(builder, vectors)

    return _tuple_of_lanes(channels.count)(array, types.int64, channels), generate


@intrinsic
def multiply_add_each(typing_context: Any, weight: Any, vectors: Any, totals: Any) -> Any:
    """``weight * vectors[k] + totals[k]`` for every channel."""
    if not isinstance(totals, types.UniTuple):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        weights, values, sums = arguments
        return _pack(
            builder,
            [
                _multiply_add(
                    builder,
                    weights,
                    builder.extract_value(values, k),
                    builder.extract_value(sums, k),
                )
                for k in range(totals.count)
            ],
        )

    return totals(LANES_TYPE, vectors, totals), generate


@intrinsic
def dot_each(typing_context: Any, left: Any, right: Any) -> Any:
    """Sum over the channels of ``left[k] * right[k]``."""
    if not isinstance(left, types.UniTuple):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pairs = [[builder.extract_value(side, k) for side in arguments] for k in range(left.count)]
        total = builder.fmul(*pairs[0], flags=_FLAGS)
        for x, y in pairs[1:]:
            total = _multiply_add(builder, x, y, total)
        return total

    return LANES_TYPE(left, right), generate
