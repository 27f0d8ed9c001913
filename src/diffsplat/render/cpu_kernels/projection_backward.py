"""Stage 5, backward: from the sums of every splat to the gradients of its Gaussian.

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
    LOCAL_ROWS,
    MEAN,
    NORMAL,
    QUAT,
    ROW_LENGTH,
    SCALE,
    axes,
    derivative_row,
    dot,
    gather,
    hold,
    orient,
    row,
    set_row,
    set_triple,
    shortest,
    times_matrix,
    triple,
)
from diffsplat.render.cpu_kernels.simd import (
    LANES,
    fetch_add,
    load,
    select,
    square_root,
    store,
)

# Rows of ``seen``, what comes back from one view: the sums, then ...
_DEPTH = GRADIENT_ROW
_WHITENING = GRADIENT_ROW + 1
_FACING = GRADIENT_ROW + 4
_SEEN_ROWS = GRADIENT_ROW + 7

# Rows of ``totals``, the sums over the views.
_ON_MEAN = 0
_ON_AXES = 3
_ON_COLOR = 12
_ON_LOG_OPACITY = 15
_ON_NORMAL = 16
_VISIBLE = 19  # how many views see the Gaussian
_TOTAL_ROWS = 20


@inline_kernel
def _gather_splat(records, record, rows, place, channels, seen, i):
    """Put the record and the sums of one splat into column ``i``; ``place`` is its row in the first band."""
    store(seen, _DEPTH * ROW_LENGTH + i, load(records, record + HEAD + DEPTH_FEATURE))
    for k in range(3):
        store(seen, (_WHITENING + k) * ROW_LENGTH + i, load(records, record + L0 + k))
    if len(channels) > NORMAL_FEATURE:
        for k in range(3):
            facing = load(records, record + HEAD + NORMAL_FEATURE + k)
            store(seen, (_FACING + k) * ROW_LENGTH + i, facing)
    for k in range(MOMENTS + len(channels)):
        total = load(rows, place + k)
        for band in range(1, rows.shape[0]):
            total += load(rows, place + band * rows.shape[1] * GRADIENT_ROW + k)
        store(seen, k * ROW_LENGTH + i, total)


@kernel
def _gather_view(projection, rows, start, size, channels, seen, totals):
    """Transpose what one view says about a chunk into rows; zero gradients for what the view does not see."""
    records, boxes = projection
    for i in range(size):
        index = start + i
        if load(boxes, index * 4 + 1) > 0:
            _gather_splat(
                records,
                index * records.shape[1],
                rows,
                index * GRADIENT_ROW,
                channels,
                seen,
                i,
            )
            store(
                totals,
                _VISIBLE * ROW_LENGTH + i,
                load(totals, _VISIBLE * ROW_LENGTH + i) + ONE,
            )
        else:
            for k in range(_SEEN_ROWS):
                store(seen, k * ROW_LENGTH + i, ZERO)
            store(seen, _DEPTH * ROW_LENGTH + i, ONE)


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
def _inverse_covariance(seen, i):
    """The entries xx, xy, yy of Q."""
    l0, l1, l2 = triple(seen, _WHITENING, i)
    unit = TWO / LOG2_E
    return unit * l0 * l0, unit * l0 * l1, unit * (l1 * l1 + l2 * l2)


@inline_kernel
def _covariance_gradient(seen, i, q):
    """The entries xx, xy, yy of H = -Q P Q."""
    p_xx, p_xy, p_yy = triple(seen, 3, i)
    # P is minus half of the second moments: the two signs cancel.
    p_xx, p_xy, p_yy = p_xx * HALF, p_xy * HALF, p_yy * HALF
    left_xx, left_xy = q[0] * p_xx + q[1] * p_xy, q[0] * p_xy + q[1] * p_yy
    left_yx, left_yy = q[1] * p_xx + q[2] * p_xy, q[1] * p_xy + q[2] * p_yy
    return (
        left_xx * q[0] + left_xy * q[1],
        left_xx * q[1] + left_xy * q[2],
        left_yx * q[1] + left_yy * q[2],
    )


@kernel
def _add_view(local, seen, view, i, totals):
    """Add one view's gradients of mean, M, colour and opacity of sixteen Gaussians."""
    mean, matrix = triple(local, MEAN, i), axes(local, i)
    inverse = ONE / row(seen, _DEPTH, i)
    tan_x = (view[0] * mean[0] + view[1] * mean[1] + view[2] * mean[2] + view[9]) * inverse
    tan_y = (view[3] * mean[0] + view[4] * mean[1] + view[5] * mean[2] + view[10]) * inverse
    held_x, held_y = hold(tan_x, view[17], view[16]), hold(tan_y, view[19], view[18])
    scale_x, scale_y = view[12] * inverse, view[13] * inverse
    t_x, t_y = (
        derivative_row(view, 0, held_x, scale_x),
        derivative_row(view, 1, held_y, scale_y),
    )
    spread_x, spread_y = times_matrix(t_x, matrix), times_matrix(t_y, matrix)
    q = _inverse_covariance(seen, i)
    h = _covariance_gradient(seen, i, q)
    on_spread_x = _combine(TWO * h[0], spread_x, TWO * h[1], spread_y)
    on_spread_y = _combine(TWO * h[1], spread_x, TWO * h[2], spread_y)
    _add_triple(totals, _ON_AXES, i, _combine(t_x[0], on_spread_x, t_y[0], on_spread_y))
    _add_triple(totals, _ON_AXES + 3, i, _combine(t_x[1], on_spread_x, t_y[1], on_spread_y))
    _add_triple(totals, _ON_AXES + 6, i, _combine(t_x[2], on_spread_x, t_y[2], on_spread_y))
    # Gradients of the rows of T, then of its parts: scale and held tangent.
    on_t_x = (
        dot(on_spread_x, matrix[0]),
        dot(on_spread_x, matrix[1]),
        dot(on_spread_x, matrix[2]),
    )
    on_t_y = (
        dot(on_spread_y, matrix[0]),
        dot(on_spread_y, matrix[1]),
        dot(on_spread_y, matrix[2]),
    )
    forward = view[6], view[7], view[8]
    forward_x, forward_y = dot(on_t_x, forward), dot(on_t_y, forward)
    on_scale_x = dot(on_t_x, (view[0], view[1], view[2])) - held_x * forward_x
    on_scale_y = dot(on_t_y, (view[3], view[4], view[5])) - held_y * forward_y
    # The tangents move the centre, and T where it is not held at the margin.
    moment_x, moment_y = row(seen, 1, i), row(seen, 2, i)
    on_tan_x = view[12] * (q[0] * moment_x + q[1] * moment_y)
    on_tan_y = view[13] * (q[1] * moment_x + q[2] * moment_y)
    free_x, free_y = (
        (held_x <= tan_x) & (held_x >= tan_x),
        (held_y <= tan_y) & (held_y >= tan_y),
    )
    on_tan_x = on_tan_x - select(free_x, scale_x * forward_x, ZERO)
    on_tan_y = on_tan_y - select(free_y, scale_y * forward_y, ZERO)
    along = on_tan_x * tan_x + on_tan_y * tan_y + on_scale_x * scale_x + on_scale_y * scale_y
    on_x, on_y = on_tan_x * inverse, on_tan_y * inverse
    on_z = row(seen, MOMENTS + DEPTH_FEATURE, i) - inverse * along
    _add(totals, _ON_MEAN, i, view[0] * on_x + view[3] * on_y + view[6] * on_z)
    _add(totals, _ON_MEAN + 1, i, view[1] * on_x + view[4] * on_y + view[7] * on_z)
    _add(totals, _ON_MEAN + 2, i, view[2] * on_x + view[5] * on_y + view[8] * on_z)
    _add_triple(totals, _ON_COLOR, i, triple(seen, MOMENTS, i))
    _add(totals, _ON_LOG_OPACITY, i, row(seen, 0, i))


@inline_kernel
def _add_normal(local, seen, i, totals):
    """Add one view's gradient of the shortest axis: that of the blended normal, turned back."""
    x, y, z = triple(seen, MOMENTS + NORMAL_FEATURE, i)
    kept = dot(triple(seen, _FACING, i), triple(local, NORMAL, i)) > ZERO
    turned = (
        select(kept, x, ZERO - x),
        select(kept, y, ZERO - y),
        select(kept, z, ZERO - z),
    )
    _add_triple(totals, _ON_NORMAL, i, turned)


@inline_kernel
def _on_column(axis_gradient, first, second):
    """Share of a component of the shortest axis' gradient for each of the three columns."""
    zero = axis_gradient * ZERO
    middle = select(second, axis_gradient, zero)
    return (
        select(first, axis_gradient, zero),
        select(first, zero, middle),
        select(first, zero, axis_gradient - middle),
    )


@inline_kernel
def _scaled(on_axes, scales):
    """A row of the gradient of the rotation, from that of M."""
    return on_axes[0] * scales[0], on_axes[1] * scales[1], on_axes[2] * scales[2]


@inline_kernel
def _sum(a, b):
    """Sum of two triples."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@inline_kernel
def _set_quaternion_gradient(d, local, i):
    """From the gradient ``d`` of the rotation matrix (three rows) to that of the quaternion as given."""
    w, (x, y, z) = row(local, QUAT, i), triple(local, QUAT + 1, i)
    unit = ONE / square_root(w * w + x * x + y * y + z * z)
    w, x, y, z = w * unit, x * unit, y * unit, z * unit
    turn_x, turn_y, turn_z = d[2][1] - d[1][2], d[0][2] - d[2][0], d[1][0] - d[0][1]
    xy, xz, yz = d[0][1] + d[1][0], d[0][2] + d[2][0], d[1][2] + d[2][1]
    on_w = TWO * (x * turn_x + y * turn_y + z * turn_z)
    on_x = TWO * (w * turn_x + y * xy + z * xz - TWO * x * (d[1][1] + d[2][2]))
    on_y = TWO * (w * turn_y + x * xy + z * yz - TWO * y * (d[0][0] + d[2][2]))
    on_z = TWO * (w * turn_z + x * xz + y * yz - TWO * z * (d[0][0] + d[1][1]))
    along = on_w * w + on_x * x + on_y * y + on_z * z
    set_row(local, QUAT, i, (on_w - along * w) * unit)
    set_triple(
        local,
        QUAT + 1,
        i,
        (
            (on_x - along * x) * unit,
            (on_y - along * y) * unit,
            (on_z - along * z) * unit,
        ),
    )


@kernel
def _finish(local, totals, size, channels):
    """Replace scales and quaternions in ``local`` by their gradients, from that of M."""
    for i in range(0, size, LANES):
        scales, matrix = triple(local, SCALE, i), axes(local, i)
        on_0, on_1, on_2 = (
            triple(totals, _ON_AXES, i),
            triple(totals, _ON_AXES + 3, i),
            triple(totals, _ON_AXES + 6, i),
        )
        rotation_gradient = (
            _scaled(on_0, scales),
            _scaled(on_1, scales),
            _scaled(on_2, scales),
        )
        if len(channels) > NORMAL_FEATURE:
            first, second = shortest(scales[0], scales[1], scales[2])
            normal = triple(totals, _ON_NORMAL, i)
            rotation_gradient = (
                _sum(rotation_gradient[0], _on_column(normal[0], first, second)),
                _sum(rotation_gradient[1], _on_column(normal[1], first, second)),
                _sum(rotation_gradient[2], _on_column(normal[2], first, second)),
            )
        _set_quaternion_gradient(rotation_gradient, local, i)
        # M is rotation times scale, column by column.
        on_scales = (
            (on_0[0] * matrix[0][0] + on_1[0] * matrix[1][0] + on_2[0] * matrix[2][0]) / scales[0],
            (on_0[1] * matrix[0][1] + on_1[1] * matrix[1][1] + on_2[1] * matrix[2][1]) / scales[1],
            (on_0[2] * matrix[0][2] + on_1[2] * matrix[1][2] + on_2[2] * matrix[2][2]) / scales[2],
        )
        set_triple(local, SCALE, i, on_scales)


@kernel
def _scatter(scene, start, size, local, totals, gradients):
    """Write the gradients of those Gaussians of a chunk that some view sees."""
    for i in range(size):
        if load(totals, _VISIBLE * ROW_LENGTH + i) == ZERO:
            continue
        g = np.int64(load(scene.live, start + i))
        on_log_opacity = load(totals, _ON_LOG_OPACITY * ROW_LENGTH + i)
        store(gradients.opacities, g, on_log_opacity / load(scene.cloud.opacities, g))
        for k in range(3):
            store(
                gradients.means,
                g * 3 + k,
                load(totals, (_ON_MEAN + k) * ROW_LENGTH + i),
            )
            store(
                gradients.colors,
                g * 3 + k,
                load(totals, (_ON_COLOR + k) * ROW_LENGTH + i),
            )
            store(gradients.scales, g * 3 + k, load(local, (SCALE + k) * ROW_LENGTH + i))
        for k in range(4):
            store(gradients.quats, g * 4 + k, load(local, (QUAT + k) * ROW_LENGTH + i))


@kernel
def unproject_worker(queue, scene, projection, rows, gradients):
    """Write the gradients of chunk after chunk from the queue. Those of what no view sees stay untouched."""
    local = np.ones(LOCAL_ROWS * ROW_LENGTH, np.float32)
    seen = np.ones(_SEEN_ROWS * ROW_LENGTH, np.float32)
    totals = np.empty(_TOTAL_ROWS * ROW_LENGTH, np.float32)
    while True:
        chunk = fetch_add(queue, 1)
        if chunk >= projection.counts.shape[1]:
            break
        start = chunk * CHUNK
        size = min(CHUNK, scene.live.size - start)
        gather(scene.cloud, scene.live, start, size, local)
        orient(local, size, scene.channels)
        totals[:] = ZERO
        for v in range(scene.views.shape[0]):
            splats = projection.records[v], projection.boxes[v]
            _gather_view(splats, rows[v], start, size, scene.channels, seen, totals)
            for i in range(0, size, LANES):
                _add_view(local, seen, scene.views[v], i, totals)
                if len(scene.channels) > NORMAL_FEATURE:
                    _add_normal(local, seen, i, totals)
        _finish(local, totals, size, scene.channels)
        _scatter(scene, start, size, local, totals, gradients)
