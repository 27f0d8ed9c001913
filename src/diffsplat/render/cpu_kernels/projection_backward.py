"""Stage 1, backward: gradients of the Gaussians from those of their projected splats.

The notation is that of :mod:`.projection`: ``G = T M``, ``T = J W``. With ``Q`` the inverse of the projected
covariance and ``P`` the gradient of ``Q`` (from the second moments), the covariance has the gradient ``H = -Q P Q``
and ``G`` has ``2 H G``; from there the chain rule goes to ``M`` (rotation and scales) and to ``T`` (the mean).
"""

import numpy as np

from diffsplat.render.cpu_kernels.array_layout import (
    CHUNK,
    DEPTH_FEATURE,
    GRADIENT_ROW,
    HALF,
    HEAD,
    L0,
    LOG2_E,
    MOMENTS,
    NORMAL_FEATURE,
    ONE,
    TWO,
    ZERO,
)
from diffsplat.render.cpu_kernels.compilation_cache import inline_kernel, kernel
from diffsplat.render.cpu_kernels.gaussian_chunks import (
    MEAN,
    NORMAL,
    QUAT,
    ROW_LENGTH,
    SCALE,
    axes,
    clamp,
    derivative_row,
    dot,
    empty_chunk,
    load_chunk,
    matrix_times,
    row,
    set_row,
    set_triple,
    shortest,
    times_matrix,
    triple,
    triple_rows,
)
from diffsplat.render.cpu_kernels.simd import LANES, fetch_add, load, select, square_root, store

# Rows of ``per_view``, the gradients that one view contributes: the sums, then ...
_DEPTH = GRADIENT_ROW
_WHITENING = GRADIENT_ROW + 1
_FACING = GRADIENT_ROW + 4
_PER_VIEW_ROWS = GRADIENT_ROW + 7

# Rows of ``totals``, the sums over the views.
_GRAD_MEAN = 0
_GRAD_AXES = 3
_GRAD_COLOR = 12
_GRAD_LOG_OPACITY = 15
_GRAD_NORMAL = 16
_VISIBLE = 19  # how many views see the Gaussian
_TOTAL_ROWS = 20


@inline_kernel
def _gather_splat(records, record, rows, first_sum, channels, per_view, i):
    """Put the record and the sums of one splat into column ``i``; its sums in the first band start at ``first_sum``."""
    store(per_view, _DEPTH * ROW_LENGTH + i, load(records, record + HEAD + DEPTH_FEATURE))
    for k in range(3):
        store(per_view, (_WHITENING + k) * ROW_LENGTH + i, load(records, record + L0 + k))
    if len(channels) > NORMAL_FEATURE:
        for k in range(3):
            facing = load(records, record + HEAD + NORMAL_FEATURE + k)
            store(per_view, (_FACING + k) * ROW_LENGTH + i, facing)
    for k in range(MOMENTS + len(channels)):
        total = load(rows, first_sum + k)
        for band in range(1, rows.shape[0]):
            total += load(rows, first_sum + band * rows.shape[1] * GRADIENT_ROW + k)
        store(per_view, k * ROW_LENGTH + i, total)


@kernel
def _gather_view(projection, rows, start, size, channels, per_view, totals):
    """Transpose one view's gradients of a chunk into rows; zeros for what the view does not see."""
    records, boxes = projection
    for i in range(size):
        index = start + i
        if load(boxes, index * 4 + 1) > 0:
            record, first_sum = index * records.shape[1], index * GRADIENT_ROW
            _gather_splat(records, record, rows, first_sum, channels, per_view, i)
            store(totals, _VISIBLE * ROW_LENGTH + i, load(totals, _VISIBLE * ROW_LENGTH + i) + ONE)
        else:
            for k in range(_PER_VIEW_ROWS):
                store(per_view, k * ROW_LENGTH + i, ZERO)
            store(per_view, _DEPTH * ROW_LENGTH + i, ONE)


@inline_kernel
def _add(totals, index, i, value):
    """Add to sixteen columns of a row."""
    set_row(totals, index, i, row(totals, index, i) + value)


@inline_kernel
def _add_triple(totals, index, i, values):
    """Add to sixteen columns of three rows."""
    _add(totals, index, i, values[0])
    _add(totals, index + 1, i, values[1])
    _add(totals, index + 2, i, values[2])


@inline_kernel
def _combine(a, x, b, y):
    """``a x + b y`` of two triples."""
    return a * x[0] + b * y[0], a * x[1] + b * y[1], a * x[2] + b * y[2]


@inline_kernel
def _inverse_covariance(per_view, i):
    """The entries xx, xy, yy of Q."""
    l0, l1, l2 = triple(per_view, _WHITENING, i)
    unit = TWO / LOG2_E
    return unit * l0 * l0, unit * l0 * l1, unit * (l1 * l1 + l2 * l2)


@inline_kernel
def _covariance_gradient(per_view, i, q):
    """The entries xx, xy, yy of H = -Q P Q."""
    p_xx, p_xy, p_yy = triple(per_view, 3, i)
    # P is minus half of the second moments: the two signs cancel.
    p_xx, p_xy, p_yy = p_xx * HALF, p_xy * HALF, p_yy * HALF
    left_xx, left_xy = q[0] * p_xx + q[1] * p_xy, q[0] * p_xy + q[1] * p_yy
    left_yx, left_yy = q[1] * p_xx + q[2] * p_xy, q[1] * p_xy + q[2] * p_yy
    return (left_xx * q[0] + left_xy * q[1], left_xx * q[1] + left_xy * q[2], left_yx * q[1] + left_yy * q[2])


@kernel
def _add_view(world, per_view, view, i, totals):
    """Add one view's gradients of mean, M, colour and opacity of sixteen Gaussians."""
    mean, matrix = triple(world, MEAN, i), axes(world, i)
    inverse = ONE / row(per_view, _DEPTH, i)
    tan_x = (view[0] * mean[0] + view[1] * mean[1] + view[2] * mean[2] + view[9]) * inverse
    tan_y = (view[3] * mean[0] + view[4] * mean[1] + view[5] * mean[2] + view[10]) * inverse
    clamped_x, clamped_y = clamp(tan_x, view[17], view[16]), clamp(tan_y, view[19], view[18])
    scale_x, scale_y = view[12] * inverse, view[13] * inverse
    t_x, t_y = derivative_row(view, 0, clamped_x, scale_x), derivative_row(view, 1, clamped_y, scale_y)
    spread_x, spread_y = times_matrix(t_x, matrix), times_matrix(t_y, matrix)
    q = _inverse_covariance(per_view, i)
    h = _covariance_gradient(per_view, i, q)
    grad_spread_x = _combine(TWO * h[0], spread_x, TWO * h[1], spread_y)
    grad_spread_y = _combine(TWO * h[1], spread_x, TWO * h[2], spread_y)
    _add_triple(totals, _GRAD_AXES, i, _combine(t_x[0], grad_spread_x, t_y[0], grad_spread_y))
    _add_triple(totals, _GRAD_AXES + 3, i, _combine(t_x[1], grad_spread_x, t_y[1], grad_spread_y))
    _add_triple(totals, _GRAD_AXES + 6, i, _combine(t_x[2], grad_spread_x, t_y[2], grad_spread_y))
    # Gradients of the rows of T, then of its parts: scale and clamped tangent.
    grad_t_x, grad_t_y = matrix_times(matrix, grad_spread_x), matrix_times(matrix, grad_spread_y)
    forward = view[6], view[7], view[8]
    forward_x, forward_y = dot(grad_t_x, forward), dot(grad_t_y, forward)
    grad_scale_x = dot(grad_t_x, (view[0], view[1], view[2])) - clamped_x * forward_x
    grad_scale_y = dot(grad_t_y, (view[3], view[4], view[5])) - clamped_y * forward_y
    # The tangents move the centre, and T where they are not clamped at the margin.
    moment_x, moment_y = row(per_view, 1, i), row(per_view, 2, i)
    grad_tan_x = view[12] * (q[0] * moment_x + q[1] * moment_y)
    grad_tan_y = view[13] * (q[1] * moment_x + q[2] * moment_y)
    free_x = (clamped_x <= tan_x) & (clamped_x >= tan_x)
    free_y = (clamped_y <= tan_y) & (clamped_y >= tan_y)
    grad_tan_x = grad_tan_x - select(free_x, scale_x * forward_x, ZERO)
    grad_tan_y = grad_tan_y - select(free_y, scale_y * forward_y, ZERO)
    along = grad_tan_x * tan_x + grad_tan_y * tan_y + grad_scale_x * scale_x + grad_scale_y * scale_y
    grad_x, grad_y = grad_tan_x * inverse, grad_tan_y * inverse
    grad_z = row(per_view, MOMENTS + DEPTH_FEATURE, i) - inverse * along
    _add(totals, _GRAD_MEAN, i, view[0] * grad_x + view[3] * grad_y + view[6] * grad_z)
    _add(totals, _GRAD_MEAN + 1, i, view[1] * grad_x + view[4] * grad_y + view[7] * grad_z)
    _add(totals, _GRAD_MEAN + 2, i, view[2] * grad_x + view[5] * grad_y + view[8] * grad_z)
    _add_triple(totals, _GRAD_COLOR, i, triple(per_view, MOMENTS, i))
    _add(totals, _GRAD_LOG_OPACITY, i, row(per_view, 0, i))


@inline_kernel
def _add_normal(world, per_view, i, totals):
    """Add one view's gradient of the shortest axis: that of the blended normal, turned back."""
    x, y, z = triple(per_view, MOMENTS + NORMAL_FEATURE, i)
    kept = dot(triple(per_view, _FACING, i), triple(world, NORMAL, i)) > ZERO
    turned = select(kept, x, ZERO - x), select(kept, y, ZERO - y), select(kept, z, ZERO - z)
    _add_triple(totals, _GRAD_NORMAL, i, turned)


@inline_kernel
def _column_gradients(axis_gradient, first, second):
    """Share of a component of the shortest axis' gradient for each of the three columns."""
    zero = axis_gradient * ZERO
    middle = select(second, axis_gradient, zero)
    return (
        select(first, axis_gradient, zero),
        select(first, zero, middle),
        select(first, zero, axis_gradient - middle),
    )


@inline_kernel
def _scaled(grad_axes, scales):
    """A row of the gradient of the rotation, from that of M."""
    return grad_axes[0] * scales[0], grad_axes[1] * scales[1], grad_axes[2] * scales[2]


@inline_kernel
def _sum(a, b):
    """Sum of two triples."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@inline_kernel
def _set_quaternion_gradient(d, world, i):
    """From the gradient ``d`` of the rotation matrix (three rows) to that of the quaternion as given."""
    w, (x, y, z) = row(world, QUAT, i), triple(world, QUAT + 1, i)
    unit = ONE / square_root(w * w + x * x + y * y + z * z)
    w, x, y, z = w * unit, x * unit, y * unit, z * unit
    turn_x, turn_y, turn_z = d[2][1] - d[1][2], d[0][2] - d[2][0], d[1][0] - d[0][1]
    xy, xz, yz = d[0][1] + d[1][0], d[0][2] + d[2][0], d[1][2] + d[2][1]
    grad_w = TWO * (x * turn_x + y * turn_y + z * turn_z)
    grad_x = TWO * (w * turn_x + y * xy + z * xz - TWO * x * (d[1][1] + d[2][2]))
    grad_y = TWO * (w * turn_y + x * xy + z * yz - TWO * y * (d[0][0] + d[2][2]))
    grad_z = TWO * (w * turn_z + x * xz + y * yz - TWO * z * (d[0][0] + d[1][1]))
    along = grad_w * w + grad_x * x + grad_y * y + grad_z * z
    set_row(world, QUAT, i, (grad_w - along * w) * unit)
    set_row(world, QUAT + 1, i, (grad_x - along * x) * unit)
    set_row(world, QUAT + 2, i, (grad_y - along * y) * unit)
    set_row(world, QUAT + 3, i, (grad_z - along * z) * unit)


@kernel
def _finish(world, totals, size, channels):
    """Replace scales and quaternions in ``world`` by their gradients, from that of M."""
    for i in range(0, size, LANES):
        scales, matrix = triple(world, SCALE, i), axes(world, i)
        grad_0, grad_1, grad_2 = triple_rows(totals, _GRAD_AXES, i)
        rotation_gradient = _scaled(grad_0, scales), _scaled(grad_1, scales), _scaled(grad_2, scales)
        if len(channels) > NORMAL_FEATURE:
            first, second = shortest(scales[0], scales[1], scales[2])
            normal = triple(totals, _GRAD_NORMAL, i)
            rotation_gradient = (
                _sum(rotation_gradient[0], _column_gradients(normal[0], first, second)),
                _sum(rotation_gradient[1], _column_gradients(normal[1], first, second)),
                _sum(rotation_gradient[2], _column_gradients(normal[2], first, second)),
            )
        _set_quaternion_gradient(rotation_gradient, world, i)
        # M is rotation times scale, column by column.
        grad_scales = (
            (grad_0[0] * matrix[0][0] + grad_1[0] * matrix[1][0] + grad_2[0] * matrix[2][0]) / scales[0],
            (grad_0[1] * matrix[0][1] + grad_1[1] * matrix[1][1] + grad_2[1] * matrix[2][1]) / scales[1],
            (grad_0[2] * matrix[0][2] + grad_1[2] * matrix[1][2] + grad_2[2] * matrix[2][2]) / scales[2],
        )
        set_triple(world, SCALE, i, grad_scales)


@kernel
def _scatter(scene, start, size, world, totals, gradients):
    """Write the gradients of those Gaussians of a chunk that some view sees."""
    for i in range(size):
        if load(totals, _VISIBLE * ROW_LENGTH + i) == ZERO:
            continue
        g = np.int64(load(scene.candidates, start + i))
        grad_log_opacity = load(totals, _GRAD_LOG_OPACITY * ROW_LENGTH + i)
        store(gradients.opacities, g, grad_log_opacity / load(scene.gaussians.opacities, g))
        for k in range(3):
            store(gradients.means, g * 3 + k, load(totals, (_GRAD_MEAN + k) * ROW_LENGTH + i))
            store(gradients.colors, g * 3 + k, load(totals, (_GRAD_COLOR + k) * ROW_LENGTH + i))
            store(gradients.scales, g * 3 + k, load(world, (SCALE + k) * ROW_LENGTH + i))
        for k in range(4):
            store(gradients.quats, g * 4 + k, load(world, (QUAT + k) * ROW_LENGTH + i))


@kernel
def project_backward(queue, scene, projection, rows, gradients):
    """Write the gradients of chunk after chunk from the queue. Those of what no view sees stay untouched."""
    world = empty_chunk()
    per_view = np.ones(_PER_VIEW_ROWS * ROW_LENGTH, np.float32)
    totals = np.empty(_TOTAL_ROWS * ROW_LENGTH, np.float32)
    while True:
        chunk = fetch_add(queue, 1)
        if chunk >= projection.counts.shape[1]:
            break
        start, size = chunk * CHUNK, load_chunk(scene, chunk, world)
        totals[:] = ZERO
        for v in range(scene.views.shape[0]):
            splats = projection.records[v], projection.boxes[v]
            _gather_view(splats, rows[v], start, size, scene.channels, per_view, totals)
            for i in range(0, size, LANES):
                _add_view(world, per_view, scene.views[v], i, totals)
                if len(scene.channels) > NORMAL_FEATURE:
                    _add_normal(world, per_view, i, totals)
        _finish(world, totals, size, scene.channels)
        _scatter(scene, start, size, world, totals, gradients)
