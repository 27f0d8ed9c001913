"""Chunks of Gaussians in a layout that suits SIMD: one row per parameter, one column per Gaussian.

The forward and the backward pass of the projection work on them. The rows of ``world`` hold what a chunk is in the
world, the same for all views.
"""

import numpy as np

from diffsplat.render.cpu_kernels.array_layout import CHUNK, NORMAL_FEATURE, ONE, TWO
from diffsplat.render.cpu_kernels.compilation_cache import inline_kernel, kernel
from diffsplat.render.cpu_kernels.simd import (
    LANES,
    load,
    load_lanes,
    maximum,
    minimum,
    select,
    square_root,
    store,
    store_lanes,
)

# Rows of ``world``.
MEAN = 0  # x, y, z
QUAT = 3  # w, x, y, z as given
SCALE = 7
LOG2_OPACITY = 10
AXES = 11  # the matrix M = rotation times scales, by rows
NORMAL = 20  # direction of the shortest axis
_WORLD_ROWS = 23

ROW_LENGTH = CHUNK + LANES
"""Rows are a little longer than a chunk, so that the entries of a column do not share one set of the cache."""


@inline_kernel
def row(memory, index, column):
    """Sixteen columns of a row."""
    return load_lanes(memory, index * ROW_LENGTH + column)


@inline_kernel
def set_row(memory, index, column, value):
    """Write sixteen columns of a row."""
    store_lanes(memory, index * ROW_LENGTH + column, value)


@inline_kernel
def triple(memory, index, column):
    """Sixteen columns of three rows that follow each other."""
    return row(memory, index, column), row(memory, index + 1, column), row(memory, index + 2, column)


@inline_kernel
def triple_rows(memory, index, column):
    """Sixteen columns of nine rows that follow each other: a 3 x 3 matrix by its rows."""
    return triple(memory, index, column), triple(memory, index + 3, column), triple(memory, index + 6, column)


@inline_kernel
def set_triple(memory, index, column, values):
    """Write sixteen columns of three rows that follow each other."""
    set_row(memory, index, column, values[0])
    set_row(memory, index + 1, column, values[1])
    set_row(memory, index + 2, column, values[2])


@inline_kernel
def shortest(sx, sy, sz):
    """Masks: the first scale is the smallest, the second is (if not the first). The first of equals wins."""
    return (sx <= sy) & (sx <= sz), sy <= sz


@inline_kernel
def empty_chunk():
    """Memory for the rows of a chunk. Lanes beyond its last Gaussian are computed and ignored: any number will do."""
    return np.ones(_WORLD_ROWS * ROW_LENGTH, np.float32)


@inline_kernel
def load_chunk(scene, chunk, world):
    """Fill the rows of a chunk; returns how many Gaussians it has."""
    start = chunk * CHUNK
    size = min(CHUNK, scene.candidates.size - start)
    _transpose(scene.gaussians, scene.candidates, start, size, world)
    _orient(world, size, scene.channels)
    return size


@kernel
def _transpose(gaussians, candidates, start, size, world):
    """Transpose the parameters of a chunk into rows."""
    for i in range(size):
        g = np.int64(load(candidates, start + i))
        for k in range(3):
            store(world, (MEAN + k) * ROW_LENGTH + i, load(gaussians.means, g * 3 + k))
            store(world, (SCALE + k) * ROW_LENGTH + i, load(gaussians.scales, g * 3 + k))
        for k in range(4):
            store(world, (QUAT + k) * ROW_LENGTH + i, load(gaussians.quats, g * 4 + k))
        store(world, LOG2_OPACITY * ROW_LENGTH + i, np.log2(load(gaussians.opacities, g)))


@kernel
def _orient(world, size, channels):
    """Fill in the matrix M and, with normals, the shortest axis."""
    for i in range(0, size, LANES):
        w, (x, y, z) = row(world, QUAT, i), triple(world, QUAT + 1, i)
        sx, sy, sz = triple(world, SCALE, i)
        unit = ONE / square_root(w * w + x * x + y * y + z * z)
        w, x, y, z = w * unit, x * unit, y * unit, z * unit
        r00, r01, r02 = ONE - TWO * (y * y + z * z), TWO * (x * y - w * z), TWO * (x * z + w * y)
        r10, r11, r12 = TWO * (x * y + w * z), ONE - TWO * (x * x + z * z), TWO * (y * z - w * x)
        r20, r21, r22 = TWO * (x * z - w * y), TWO * (y * z + w * x), ONE - TWO * (x * x + y * y)
        set_triple(world, AXES, i, (r00 * sx, r01 * sy, r02 * sz))
        set_triple(world, AXES + 3, i, (r10 * sx, r11 * sy, r12 * sz))
        set_triple(world, AXES + 6, i, (r20 * sx, r21 * sy, r22 * sz))
        if len(channels) > NORMAL_FEATURE:
            first, second = shortest(sx, sy, sz)
            axis = (
                select(first, r00, select(second, r01, r02)),
                select(first, r10, select(second, r11, r12)),
                select(first, r20, select(second, r21, r22)),
            )
            set_triple(world, NORMAL, i, axis)


@inline_kernel
def axes(world, i):
    """The nine entries of M of sixteen Gaussians, by rows."""
    return triple_rows(world, AXES, i)


@inline_kernel
def dot(a, b):
    """Dot product of two triples."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@inline_kernel
def cross(a, b):
    """Cross product of two triples."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@inline_kernel
def times_matrix(a, m):
    """Row vector (a triple) times a matrix (three rows)."""
    return (
        a[0] * m[0][0] + a[1] * m[1][0] + a[2] * m[2][0],
        a[0] * m[0][1] + a[1] * m[1][1] + a[2] * m[2][1],
        a[0] * m[0][2] + a[1] * m[1][2] + a[2] * m[2][2],
    )


@inline_kernel
def matrix_times(m, a):
    """Matrix (three rows) times a column vector (a triple)."""
    return dot(a, m[0]), dot(a, m[1]), dot(a, m[2])


@inline_kernel
def clamp(value, low, high):
    """The value, clamped between two limits."""
    return minimum(maximum(value, low), high)


@inline_kernel
def derivative_row(view, k, tangent, scale):
    """Row ``k`` (0 for x, 1 for y) of T = J W: focal length over depth is ``scale``."""
    return (
        scale * (view[3 * k] - tangent * view[6]),
        scale * (view[3 * k + 1] - tangent * view[7]),
        scale * (view[3 * k + 2] - tangent * view[8]),
    )
