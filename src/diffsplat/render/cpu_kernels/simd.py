"""SIMD vectors for numba kernels: sixteen float32 lanes as one value.

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

import inspect
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

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
    """Lanes and masks as they are, a scalar in every lane."""
    if isinstance(value_type, LanesType | MaskType):
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
        return emit(builder, *map(partial(_as_lanes, context, builder), arguments, signature.args))

    for left, right in ((LanesType, LanesType), (LanesType, types.Number), (types.Number, LanesType)):
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


# --- from emitters of LLVM code to functions that kernels can call -------------------------------------------------


def _kernel_function(
    emit: Callable[..., Any], signature: Callable[..., Any], lower: Callable[..., Any]
) -> Any:
    """The function ``emit`` for kernels.

    Args:
        emit: gets the builder and one value for every argument; its name, arguments and docstring are kept.
        signature: the call's numba signature from the types of its arguments.
        lower: ``lower(context, builder, signature, arguments)`` calls ``emit`` with what it expects.
    """

    def define(typing_context: Any, *argument_types: Any) -> Any:
        return signature(*argument_types), lower

    define.__name__, define.__doc__ = emit.__name__, emit.__doc__
    define.__signature__ = inspect.signature(emit)  # pyright: ignore[reportFunctionMemberAccess]
    return intrinsic(define)


def _lanewise(result: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorate an emitter that takes lanes and masks; calls may give a scalar for lanes."""

    def decorate(emit: Callable[..., Any]) -> Any:
        def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return emit(builder, *map(partial(_as_lanes, context, builder), arguments, signature.args))

        return _kernel_function(emit, result, lower)

    return decorate


def _on_array(signature: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Decorate an emitter that gets, for a call's first argument, a function from flat index to pointer."""

    def decorate(emit: Callable[..., Any]) -> Any:
        def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            rest = map(partial(_unpack, builder), arguments[1:], signature.args[1:])
            result = emit(builder, lambda index: builder.gep(data, [index], inbounds=True), *rest)
            return context.get_dummy_value() if signature.return_type == types.void else result

        return _kernel_function(emit, signature, lower)

    return decorate


def _on_values(signature: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Decorate an emitter that gets plain values, and a list for every tuple."""

    def decorate(emit: Callable[..., Any]) -> Any:
        def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return emit(builder, *map(partial(_unpack, builder), arguments, signature.args))

        return _kernel_function(emit, signature, lower)

    return decorate


def _unpack(builder: Any, value: Any, value_type: Any) -> Any:
    if isinstance(value_type, types.UniTuple):
        return [builder.extract_value(value, k) for k in range(value_type.count)]
    return value


# --- making lanes ---------------------------------------------------------------------------------------------


def constant_lanes(values: list[float]) -> Any:
    """A kernel function without arguments that returns these sixteen numbers."""

    @_lanewise(LANES_TYPE)
    def lanes(builder: Any) -> Any:
        return ir.Constant(_VECTOR, [float(value) for value in values])

    return lanes


@_lanewise(LANES_TYPE)
def broadcast(builder: Any, value: Any) -> Any:
    """The scalar ``value`` in every lane."""
    return value


# --- arithmetic -----------------------------------------------------------------------------------------------


@_lanewise(LANES_TYPE)
def multiply_add(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """``x * y + z``, fused where the processor can."""
    return _multiply_add(builder, x, y, z)


@_lanewise(LANES_TYPE)
def minimum(builder: Any, x: Any, y: Any) -> Any:
    """Lane-wise ``x if x < y else y``: a NaN in ``x`` gives ``y``."""
    return builder.select(builder.fcmp_ordered("<", x, y), x, y)


@_lanewise(LANES_TYPE)
def maximum(builder: Any, x: Any, y: Any) -> Any:
    """Lane-wise ``x if x > y else y``: a NaN in ``x`` gives ``y``."""
    return builder.select(builder.fcmp_ordered(">", x, y), x, y)


def _llvm_function(name: str) -> Any:
    @_lanewise(LANES_TYPE)
    def apply(builder: Any, x: Any) -> Any:
        return builder.call(_declared(builder, f"llvm.{name}.v16f32", _VECTOR, [_VECTOR]), [x])

    return apply


square_root = _llvm_function("sqrt")
floor = _llvm_function("floor")
ceil = _llvm_function("ceil")
absolute = _llvm_function("fabs")


@_lanewise(LANES_TYPE)
def negative_absolute(builder: Any, x: Any) -> Any:
    """``-|x|`` in every lane."""
    return builder.bitcast(builder.or_(builder.bitcast(x, _INT_VECTOR), _int_constant(-(2**31))), _VECTOR)


@_lanewise(LANES_TYPE)
def exp2(builder: Any, x: Any) -> Any:
    """``2**x`` for ``x`` in [-120, 0], relative error 2e-7."""
    # Truncation rounds towards zero; for x <= 0 that of x - 1/2 is the nearest whole number.
    whole = builder.fptosi(builder.fsub(x, _constant(0.5)), _INT_VECTOR)
    fraction = builder.fsub(x, builder.sitofp(whole, _VECTOR))
    power = _constant(_EXP2_COEFFICIENTS[0])
    for coefficient in (*_EXP2_COEFFICIENTS[1:], 1.0):
        power = _multiply_add(builder, power, fraction, _constant(coefficient))
    exponent = builder.shl(whole, _int_constant(23))
    return builder.bitcast(builder.add(builder.bitcast(power, _INT_VECTOR), exponent), _VECTOR)


# --- masks ----------------------------------------------------------------------------------------------------


@_lanewise(LANES_TYPE)
def select(builder: Any, mask: Any, x: Any, y: Any) -> Any:
    """``x`` where ``mask``, ``y`` elsewhere."""
    return builder.select(mask, x, y)


@_lanewise(MASK_TYPE)
def and_not(builder: Any, x: Any, y: Any) -> Any:
    """``x and not y`` of two masks."""
    return builder.and_(x, builder.xor(y, ir.Constant(_BIT_VECTOR, [1] * LANES)))


@_lanewise(types.boolean)
def any_lane(builder: Any, mask: Any) -> Any:
    """Whether any lane of the mask is set."""
    return builder.icmp_unsigned("!=", builder.bitcast(mask, _MASK_INT), ir.Constant(_MASK_INT, 0))


@_lanewise(types.int64)
def mask_bits(builder: Any, mask: Any) -> Any:
    """The mask as an integer, lane k in bit k."""
    return builder.zext(builder.bitcast(mask, _MASK_INT), _INT64)


@_on_values(lambda _bits: types.int64(types.int64))
def lowest_bit(builder: Any, bits: Any) -> Any:
    """Position of the lowest set bit of a non-zero integer."""
    function = _declared(builder, "llvm.cttz.i64", _INT64, [_INT64, ir.IntType(1)])
    return builder.call(function, [bits, ir.Constant(ir.IntType(1), 1)])


@_on_values(lambda _value: types.int64(types.float32))
def float_bits(builder: Any, value: Any) -> Any:
    """The bits of a float32; for positive numbers they sort as the numbers do."""
    return builder.zext(builder.bitcast(value, _INT32), _INT64)


# --- reductions -----------------------------------------------------------------------------------------------


@_lanewise(types.float32)
def lanes_maximum(builder: Any, x: Any) -> Any:
    """The largest of the sixteen lanes."""
    function = _declared(builder, "llvm.vector.reduce.fmax.v16f32", _FLOAT, [_VECTOR])
    return builder.call(function, [x], fastmath=_FLAGS)


def _halved(builder: Any, x: Any, y: Any, width: int) -> Any:
    """Sum the upper half of each group of ``width`` lanes onto its lower half, for x and y, and interleave them."""
    half = width // 2
    low = [group * width + lane for group in range(LANES // width) for lane in range(half)]
    lows = low + [LANES + lane for lane in low]
    highs = [lane + half for lane in lows]
    first = builder.shuffle_vector(x, y, ir.Constant(_INT_VECTOR, lows))
    second = builder.shuffle_vector(x, y, ir.Constant(_INT_VECTOR, highs))
    return builder.fadd(first, second, flags=_FLAGS)


@_on_values(LANES_TYPE)
def sum_each(builder: Any, vectors: Any) -> Any:
    """The sums over the lanes of up to sixteen vectors: that of ``vectors[k]`` in lane k, zero in the rest."""
    level = vectors + [None] * (LANES - len(vectors))
    width = LANES
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=True)
        zero = _constant(0.0)
        level = [None if x is None else _halved(builder, x, y or zero, width) for x, y in pairs]
        width //= 2
    return level[0]


# --- memory ---------------------------------------------------------------------------------------------------


def _load_vector(builder: Any, pointer: Any, vector: Any = _VECTOR) -> Any:
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=4)


def _store_vector(builder: Any, value: Any, pointer: Any) -> None:
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=4)


@_on_array(lambda array, _index: array.dtype(array, types.int64))
def load(builder: Any, array: Any, index: Any) -> Any:
    """The element at a flat index."""
    return builder.load(array(index))


@_on_array(lambda array, _index, _value: types.void(array, types.int64, array.dtype))
def store(builder: Any, array: Any, index: Any, value: Any) -> None:
    """Write the element at a flat index."""
    builder.store(value, array(index))


@_on_array(lambda array, _index: LANES_TYPE(array, types.int64))
def load_lanes(builder: Any, array: Any, index: Any) -> Any:
    """Sixteen consecutive elements of a float32 array."""
    return _load_vector(builder, array(index))


@_on_array(lambda array, _index, _value: types.void(array, types.int64, LANES_TYPE))
def store_lanes(builder: Any, array: Any, index: Any, value: Any) -> None:
    """Write sixteen consecutive elements of a float32 array."""
    _store_vector(builder, value, array(index))


@_on_array(lambda array, _first, _second: LANES_TYPE(array, types.int64, types.int64))
def load_halves(builder: Any, array: Any, first: Any, second: Any) -> Any:
    """Eight consecutive elements from each of two flat indices."""
    halves = [_load_vector(builder, array(index), _HALF_VECTOR) for index in (first, second)]
    return builder.shuffle_vector(*halves, ir.Constant(_INT_VECTOR, list(range(LANES))))


@_on_array(lambda array, _first, _second, _value: types.void(array, types.int64, types.int64, LANES_TYPE))
def store_halves(builder: Any, array: Any, first: Any, second: Any, value: Any) -> None:
    """Write the lower eight lanes at the flat index ``first`` and the upper eight at ``second``."""
    indices = ir.VectorType(_INT32, LANES // 2)
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    for part, index in enumerate((first, second)):
        lanes = [part * LANES // 2 + lane for lane in range(LANES // 2)]
        half = builder.shuffle_vector(value, undefined, ir.Constant(indices, lanes))
        _store_vector(builder, half, array(index))


@_on_array(lambda array, _index: types.void(array, types.int64))
def prefetch(builder: Any, array: Any, index: Any) -> None:
    """Ask for the cache line of an element that will be read soon."""
    byte_pointer = ir.IntType(8).as_pointer()
    function = _declared(builder, "llvm.prefetch.p0", ir.VoidType(), [byte_pointer, *[_INT32] * 3])
    read, keep, data = (ir.Constant(_INT32, value) for value in (0, 3, 1))
    builder.call(function, [builder.bitcast(array(index), byte_pointer), read, keep, data])


@_on_array(lambda counter, _amount: types.int64(counter, types.int64))
def fetch_add(builder: Any, counter: Any, amount: Any) -> Any:
    """Add to the first element of an int64 array atomically, and return what it was."""
    return builder.atomic_rmw("add", counter(ir.Constant(_INT64, 0)), amount, "monotonic")


# --- feature tuples: as many vectors as ``channels`` is long ----------------------------------------------------
# The length of a tuple is part of its type, so every loop over the features is unrolled at compile time.


def _lanes_each(channels: Any) -> Any:
    """Numba's type of a vector for each of the channels."""
    return types.UniTuple(LANES_TYPE, channels.count)


def _pack(builder: Any, vectors: list[Any]) -> Any:
    packed = ir.Constant(ir.ArrayType(_VECTOR, len(vectors)), ir.Undefined)
    for k, vector in enumerate(vectors):
        packed = builder.insert_value(packed, vector, k)
    return packed


def _offset(builder: Any, index: Any, by: int) -> Any:
    return builder.add(index, ir.Constant(_INT64, by))


@_on_values(lambda channels: _lanes_each(channels)(channels))
def zeros_each(builder: Any, channels: Any) -> Any:
    """A zero vector for every channel."""
    return _pack(builder, [_constant(0.0)] * len(channels))


@_on_array(lambda array, _index, channels: _lanes_each(channels)(array, types.int64, channels))
def load_each(builder: Any, array: Any, index: Any, channels: Any) -> Any:
    """Consecutive vectors of a float32 array, one for every channel."""
    starts = [_offset(builder, index, k * LANES) for k in range(len(channels))]
    return _pack(builder, [_load_vector(builder, array(start)) for start in starts])


@_on_array(lambda array, _index, vectors: types.void(array, types.int64, vectors))
def store_each(builder: Any, array: Any, index: Any, vectors: Any) -> None:
    """Write consecutive vectors of a float32 array."""
    for k, vector in enumerate(vectors):
        _store_vector(builder, vector, array(_offset(builder, index, k * LANES)))


@_on_array(lambda array, _index, channels: _lanes_each(channels)(array, types.int64, channels))
def broadcast_each(builder: Any, array: Any, index: Any, channels: Any) -> Any:
    """Consecutive elements of a float32 array, each broadcast to a vector of its own."""
    places = [_offset(builder, index, k) for k in range(len(channels))]
    return _pack(builder, [_broadcast(builder, builder.load(array(place))) for place in places])


@_on_values(lambda _weight, vectors, totals: totals(LANES_TYPE, vectors, totals))
def multiply_add_each(builder: Any, weight: Any, vectors: Any, totals: Any) -> Any:
    """``weight * vectors[k] + totals[k]`` for every channel."""
    pairs = zip(vectors, totals, strict=True)
    return _pack(builder, [_multiply_add(builder, weight, vector, total) for vector, total in pairs])


@_on_values(LANES_TYPE)
def dot_each(builder: Any, left: Any, right: Any) -> Any:
    """Sum over the channels of ``left[k] * right[k]``."""
    total = builder.fmul(left[0], right[0], flags=_FLAGS)
    for x, y in zip(left[1:], right[1:], strict=True):
        total = _multiply_add(builder, x, y, total)
    return total
