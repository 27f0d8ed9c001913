"""Stage 5, backward: from the sums of every splat to the gradients of its Gaussian.

The notation is that of :mod:`.projection`: ``G = T M``, ``T = J W``. With ``Q`` the inverse of the projected
covariance and ``P`` the gradient of ``Q`` (from the second moments), the covariance has the gradient ``H = -Q P Q``
and ``G`` has ``2 H G``; from there the chain rule goes to ``M`` (rotation and scales) and to ``T`` (the mean).
"""

import numpy as np
from numba import prange

from diffsplat.render.kernels.compilation import kernel, parallel_kernel
from diffsplat.render.kernels.layout import GRADIENT_ROW, HALF, HEAD, LOG2_E, MOMENTS, ONE, TWO, ZERO
from diffsplat.render.kernels.simd import fetch_add, load

_CHUNK = 1024


@kernel
def _rotation(w, x, y, z):
    """Rotation matrix of a unit quaternion, by rows."""
    return (
        ONE - TWO * (y * y + z * z),
        TWO * (x * y - w * z),
        TWO * (x * z + w * y),
        TWO * (x * y + w * z),
        ONE - TWO * (x * x + z * z),
        TWO * (y * z - w * x),
        TWO * (x * z - w * y),
        TWO * (y * z + w * x),
        ONE - TWO * (x * x + y * y),
    )


@kernel
def _sum_bands(rows, view, splat, sums):
    """Add up the bands of one splat's row."""
    sums[:] = ZERO
    for band in range(rows.shape[1]):
        for k in range(GRADIENT_ROW):
            sums[k] += load(rows, ((view * rows.shape[1] + band) * rows.shape[2] + splat) * GRADIENT_ROW + k)


@kernel
def _view_gradient(view, record, sums, mean, m, on_mean, on_m):
    """Add one view's gradient of the mean and of the matrix M (nine numbers by rows)."""
    x = view[0] * mean[0] + view[1] * mean[1] + view[2] * mean[2] + view[9]
    y = view[3] * mean[0] + view[4] * mean[1] + view[5] * mean[2] + view[10]
    inverse = ONE / record[HEAD + 3]
    tan_x, tan_y = x * inverse, y * inverse
    held_x = min(view[16], max(view[17], tan_x))
    held_y = min(view[18], max(view[19], tan_y))
    scale_x, scale_y = view[12] * inverse, view[13] * inverse
    t00, t01, t02 = (
        scale_x * (view[0] - held_x * view[6]),
        scale_x * (view[1] - held_x * view[7]),
        scale_x * (view[2] - held_x * view[8]),
    )
    t10, t11, t12 = (
        scale_y * (view[3] - held_y * view[6]),
        scale_y * (view[4] - held_y * view[7]),
        scale_y * (view[5] - held_y * view[8]),
    )
    g00, g01, g02 = t00 * m[0] + t01 * m[3] + t02 * m[6], t00 * m[1] + t01 * m[4] + t02 * m[7], t00 * m[2] + t01 * m[5] + t02 * m[8]
    g10, g11, g12 = t10 * m[0] + t11 * m[3] + t12 * m[6], t10 * m[1] + t11 * m[4] + t12 * m[7], t10 * m[2] + t11 * m[5] + t12 * m[8]
    # Q, the inverse covariance, from the record's whitening.
    unit = TWO / LOG2_E
    q00 = unit * record[2] * record[2]
    q01 = unit * record[2] * record[3]
    q11 = unit * (record[3] * record[3] + record[4] * record[4])
    p00, p01, p11 = -HALF * sums[3], -HALF * sums[4], -HALF * sums[5]
    a00, a01 = q00 * p00 + q01 * p01, q00 * p01 + q01 * p11
    a10, a11 = q01 * p00 + q11 * p01, q01 * p01 + q11 * p11
    h00, h01, h11 = -(a00 * q00 + a01 * q01), -(a00 * q01 + a01 * q11), -(a10 * q01 + a11 * q11)
    e00, e01, e02 = TWO * (h00 * g00 + h01 * g10), TWO * (h00 * g01 + h01 * g11), TWO * (h00 * g02 + h01 * g12)
    e10, e11, e12 = TWO * (h01 * g00 + h11 * g10), TWO * (h01 * g01 + h11 * g11), TWO * (h01 * g02 + h11 * g12)
    on_m[0] += t00 * e00 + t10 * e10
    on_m[1] += t00 * e01 + t10 * e11
    on_m[2] += t00 * e02 + t10 * e12
    on_m[3] += t01 * e00 + t11 * e10
    on_m[4] += t01 * e01 + t11 * e11
    on_m[5] += t01 * e02 + t11 * e12
    on_m[6] += t02 * e00 + t12 * e10
    on_m[7] += t02 * e01 + t12 * e11
    on_m[8] += t02 * e02 + t12 * e12
    # Gradient of T (two rows), then of the entries of J: scale_x, scale_x * held_x and those of y.
    f00, f01, f02 = e00 * m[0] + e01 * m[1] + e02 * m[2], e00 * m[3] + e01 * m[4] + e02 * m[5], e00 * m[6] + e01 * m[7] + e02 * m[8]
    f10, f11, f12 = e10 * m[0] + e11 * m[1] + e12 * m[2], e10 * m[3] + e11 * m[4] + e12 * m[5], e10 * m[6] + e11 * m[7] + e12 * m[8]
    forward_x = f00 * view[6] + f01 * view[7] + f02 * view[8]
    forward_y = f10 * view[6] + f11 * view[7] + f12 * view[8]
    on_scale_x = f00 * view[0] + f01 * view[1] + f02 * view[2] - held_x * forward_x
    on_scale_y = f10 * view[3] + f11 * view[4] + f12 * view[5] - held_y * forward_y
    # The tangents move the centre, and the derivative where it is not held at the margin.
    on_tan_x = view[12] * (q00 * sums[1] + q01 * sums[2])
    on_tan_y = view[13] * (q01 * sums[1] + q11 * sums[2])
    if held_x == tan_x:
        on_tan_x -= scale_x * forward_x
    if held_y == tan_y:
        on_tan_y -= scale_y * forward_y
    on_x, on_y = on_tan_x * inverse, on_tan_y * inverse
    on_z = sums[MOMENTS + 3] - inverse * (
        on_tan_x * tan_x + on_tan_y * tan_y + on_scale_x * scale_x + on_scale_y * scale_y
    )
    for k in range(3):
        on_mean[k] += view[k] * on_x + view[3 + k] * on_y + view[6 + k] * on_z


@kernel
def _shortest_axis(scales):
    """Index of the smallest of three scales, the first one of equals."""
    if scales[0] <= scales[1] and scales[0] <= scales[2]:
        return 0
    return 1 if scales[1] <= scales[2] else 2


@kernel
def _quaternion_gradient(d, w, x, y, z, length, gradient):
    """From the gradient ``d`` of a rotation matrix (by rows) to that of the quaternion before normalisation."""
    on_w = TWO * (x * (d[7] - d[5]) + y * (d[2] - d[6]) + z * (d[3] - d[1]))
    on_x = TWO * (y * (d[1] + d[3]) + z * (d[2] + d[6]) + w * (d[7] - d[5]) - TWO * x * (d[4] + d[8]))
    on_y = TWO * (x * (d[1] + d[3]) + z * (d[5] + d[7]) + w * (d[2] - d[6]) - TWO * y * (d[0] + d[8]))
    on_z = TWO * (x * (d[2] + d[6]) + y * (d[5] + d[7]) + w * (d[3] - d[1]) - TWO * z * (d[0] + d[4]))
    along = on_w * w + on_x * x + on_y * y + on_z * z
    gradient[0] = (on_w - along * w) / length
    gradient[1] = (on_x - along * x) / length
    gradient[2] = (on_y - along * y) / length
    gradient[3] = (on_z - along * z) / length


@kernel
def _gaussian_gradient(cloud, g, splat, views, channels, projection, rows, gradients, buffers):
    """Sum over the views and write the gradients of one Gaussian."""
    sums, m, on_m, on_axis, on_color = buffers[0], buffers[1], buffers[2], buffers[3], buffers[4]
    on_m[:] = ZERO
    on_axis[:] = ZERO
    on_color[:] = ZERO
    quat, scales = cloud.quats[g], cloud.scales[g]
    length = np.sqrt(quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3])
    w, x, y, z = quat[0] / length, quat[1] / length, quat[2] / length, quat[3] / length
    rotation = _rotation(w, x, y, z)
    for k in range(9):
        m[k] = rotation[k] * scales[k % 3]
    axis = _shortest_axis(scales)
    on_opacity = ZERO
    seen = False
    for v in range(views.shape[0]):
        if projection.boxes[v, splat, 1] == 0:
            continue
        seen = True
        record = projection.records[v, splat]
        _sum_bands(rows, v, splat, sums)
        _view_gradient(views[v], record, sums, cloud.means[g], m, gradients.means[g], on_m)
        on_opacity += sums[0]
        for k in range(3):
            on_color[k] += sums[MOMENTS + k]
        if len(channels) > 4:
            turned = ZERO
            for k in range(3):
                turned += record[HEAD + 4 + k] * rotation[k * 3 + axis]
            for k in range(3):
                on_axis[k] += sums[MOMENTS + 4 + k] if turned > ZERO else -sums[MOMENTS + 4 + k]
    if not seen:
        return
    gradients.opacities[g] = on_opacity / cloud.opacities[g]
    for k in range(3):
        gradients.colors[g, k] = on_color[k]
        gradients.scales[g, k] = (
            on_m[k] * rotation[k] + on_m[3 + k] * rotation[3 + k] + on_m[6 + k] * rotation[6 + k]
        )
    for k in range(9):
        on_m[k] *= scales[k % 3]
    for k in range(3):
        on_m[k * 3 + axis] += on_axis[k]
    _quaternion_gradient(on_m, w, x, y, z, length, gradients.quats[g])


@kernel
def unproject_worker(queue, cloud, live, views, channels, projection, rows, gradients):
    """Write the gradients of chunk after chunk from the queue. Gradients of what no view sees stay untouched."""
    buffers = np.empty((5, GRADIENT_ROW), np.float32)
    while True:
        start = fetch_add(queue, _CHUNK)
        if start >= live.size:
            break
        for splat in range(start, min(start + _CHUNK, live.size)):
            _gaussian_gradient(
                cloud, np.int64(live[splat]), splat, views, channels, projection, rows, gradients, buffers
            )


@parallel_kernel
def unproject_parallel(threads, queue, cloud, live, views, channels, projection, rows, gradients):
    """:func:`unproject_worker` on several threads."""
    for _ in prange(threads):
        unproject_worker(queue, cloud, live, views, channels, projection, rows, gradients)
