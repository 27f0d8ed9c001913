"""Stage 1: from Gaussians in the world to splats on the image.

Zwicker et al., "EWA Splatting" (2002), section 5: a Gaussian with covariance ``M M^T`` (``M`` = rotation times
scales) is seen, to first order, with covariance ``G G^T`` where ``G = J W M``, ``W`` the camera's rotation and ``J``
the derivative of the perspective projection at the centre. The determinant is taken as the squared cross product of
the rows of ``G``, which stays accurate for flat splats seen edge-on.
"""

import numpy as np
from numba import prange

from diffsplat.render.kernels.compilation import kernel, parallel_kernel
from diffsplat.render.kernels.layout import (
    CHUNK,
    FAR_PLANE,
    HALF,
    HEAD,
    LOG2_ALPHA_MIN,
    LOG2_E,
    NEAR_PLANE,
    ONE,
    OPACITY_FLOOR,
    TILE,
    TWO,
    WHITENING,
    ZERO,
)
from diffsplat.render.kernels.simd import (
    LANES,
    ceil,
    fetch_add,
    float_bits,
    floor,
    load,
    load_lanes,
    lowest_bit,
    mask_bits,
    maximum,
    minimum,
    multiply_add,
    select,
    square_root,
    store,
    store_lanes,
)

# Rows of the chunk's scratch memory, CHUNK numbers each.
_MEAN = 0  # x, y, z
_AXES = 3  # the matrix M by rows
_NORMAL = 12  # direction of the shortest axis
_LOG_OPACITY = 15  # base 2
_LOCAL_ROWS = 16
_QUAT = 3  # while gathering: quaternion and scales, in the place of the matrix
_SCALE = 7

_U, _V, _DEPTH, _L0, _L1, _L2, _SLOPE_Y, _SLOPE_X = range(8)
_BOX = 8  # first and end tile column, first and end tile row, as floats
_FACING = 12  # the normal, turned to the camera
_SCREEN_ROWS = 15

_SMALLEST_AREA = np.float32(1e-30)
_LARGEST_AREA = np.float32(1e30)


@kernel
def find_opaque(opacities, live):
    """Write the indices of the Gaussians that can reach the least alpha to ``live``, return how many."""
    found = 0
    for i in range(opacities.size):
        store(live, found, np.int32(i))
        found += np.int64(load(opacities, i) >= OPACITY_FLOOR)
    return found


@kernel
def _gather(cloud, live, start, size, local):
    """Transpose the parameters of a chunk into rows."""
    for i in range(size):
        g = np.int64(load(live, start + i))
        for k in range(3):
            store(local, (_MEAN + k) * CHUNK + i, load(cloud.means, g * 3 + k))
            store(local, (_SCALE + k) * CHUNK + i, load(cloud.scales, g * 3 + k))
        for k in range(4):
            store(local, (_QUAT + k) * CHUNK + i, load(cloud.quats, g * 4 + k))
        store(local, _LOG_OPACITY * CHUNK + i, np.log2(load(cloud.opacities, g)))


@kernel
def _orient(local, size, channels):
    """Replace quaternions and scales by the matrix M, and note the shortest axis."""
    for i in range(0, size, LANES):
        w = load_lanes(local, _QUAT * CHUNK + i)
        x = load_lanes(local, (_QUAT + 1) * CHUNK + i)
        y = load_lanes(local, (_QUAT + 2) * CHUNK + i)
        z = load_lanes(local, (_QUAT + 3) * CHUNK + i)
        sx = load_lanes(local, _SCALE * CHUNK + i)
        sy = load_lanes(local, (_SCALE + 1) * CHUNK + i)
        sz = load_lanes(local, (_SCALE + 2) * CHUNK + i)
        unit = ONE / square_root(w * w + x * x + y * y + z * z)
        w, x, y, z = w * unit, x * unit, y * unit, z * unit
        r00, r01, r02 = ONE - TWO * (y * y + z * z), TWO * (x * y - w * z), TWO * (x * z + w * y)
        r10, r11, r12 = TWO * (x * y + w * z), ONE - TWO * (x * x + z * z), TWO * (y * z - w * x)
        r20, r21, r22 = TWO * (x * z - w * y), TWO * (y * z + w * x), ONE - TWO * (x * x + y * y)
        store_lanes(local, _AXES * CHUNK + i, r00 * sx)
        store_lanes(local, (_AXES + 1) * CHUNK + i, r01 * sy)
        store_lanes(local, (_AXES + 2) * CHUNK + i, r02 * sz)
        store_lanes(local, (_AXES + 3) * CHUNK + i, r10 * sx)
        store_lanes(local, (_AXES + 4) * CHUNK + i, r11 * sy)
        store_lanes(local, (_AXES + 5) * CHUNK + i, r12 * sz)
        store_lanes(local, (_AXES + 6) * CHUNK + i, r20 * sx)
        store_lanes(local, (_AXES + 7) * CHUNK + i, r21 * sy)
        store_lanes(local, (_AXES + 8) * CHUNK + i, r22 * sz)
        if len(channels) > 4:
            first = (sx <= sy) & (sx <= sz)
            second = sy <= sz
            store_lanes(local, _NORMAL * CHUNK + i, select(first, r00, select(second, r01, r02)))
            store_lanes(local, (_NORMAL + 1) * CHUNK + i, select(first, r10, select(second, r11, r12)))
            store_lanes(local, (_NORMAL + 2) * CHUNK + i, select(first, r20, select(second, r21, r22)))


@kernel
def _face_camera(local, i, view, screen):
    """Turn the normals of sixteen Gaussians to the side of the camera."""
    nx = load_lanes(local, _NORMAL * CHUNK + i)
    ny = load_lanes(local, (_NORMAL + 1) * CHUNK + i)
    nz = load_lanes(local, (_NORMAL + 2) * CHUNK + i)
    away = (
        nx * (load_lanes(local, _MEAN * CHUNK + i) - view[20])
        + ny * (load_lanes(local, (_MEAN + 1) * CHUNK + i) - view[21])
        + nz * (load_lanes(local, (_MEAN + 2) * CHUNK + i) - view[22])
    ) > ZERO
    store_lanes(screen, _FACING * CHUNK + i, select(away, ZERO - nx, nx))
    store_lanes(screen, (_FACING + 1) * CHUNK + i, select(away, ZERO - ny, ny))
    store_lanes(screen, (_FACING + 2) * CHUNK + i, select(away, ZERO - nz, nz))


@kernel
def _cover(u, v, radius_x, radius_y, canvas, screen, i):
    """Store the tiles whose pixel centres lie in the bounding box; return whether there are any."""
    width, height = np.float32(canvas.width), np.float32(canvas.height)
    tile = np.float32(1 / TILE)
    # First and last pixel whose centre is inside, cut to the image before anything becomes an integer.
    # A centre on the border may fall out by rounding: there alpha is at the threshold anyway.
    first_x = maximum(ceil(u - radius_x - HALF), ZERO)
    first_y = maximum(ceil(v - radius_y - HALF), ZERO)
    last_x = minimum(floor(u + radius_x - HALF), width - ONE)
    last_y = minimum(floor(v + radius_y - HALF), height - ONE)
    store_lanes(screen, _BOX * CHUNK + i, floor(minimum(first_x, width) * tile))
    store_lanes(screen, (_BOX + 1) * CHUNK + i, floor(maximum(last_x, ZERO - ONE) * tile) + ONE)
    store_lanes(screen, (_BOX + 2) * CHUNK + i, floor(minimum(first_y, height) * tile))
    store_lanes(screen, (_BOX + 3) * CHUNK + i, floor(maximum(last_y, ZERO - ONE) * tile) + ONE)
    return (last_x >= first_x) & (last_y >= first_y)


@kernel
def _project_lanes(local, i, view, canvas, screen):
    """Project sixteen Gaussians of a chunk; return the mask of those that can be seen."""
    x = load_lanes(local, _MEAN * CHUNK + i)
    y = load_lanes(local, (_MEAN + 1) * CHUNK + i)
    z = load_lanes(local, (_MEAN + 2) * CHUNK + i)
    depth = multiply_add(view[6], x, multiply_add(view[7], y, multiply_add(view[8], z, view[11])))
    inverse = ONE / depth
    tan_x = multiply_add(view[0], x, multiply_add(view[1], y, multiply_add(view[2], z, view[9]))) * inverse
    tan_y = multiply_add(view[3], x, multiply_add(view[4], y, multiply_add(view[5], z, view[10]))) * inverse
    # The two rows of T = J W.
    scale_x, scale_y = view[12] * inverse, view[13] * inverse
    held_x = minimum(maximum(tan_x, view[17]), view[16])
    held_y = minimum(maximum(tan_y, view[19]), view[18])
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
    m00 = load_lanes(local, _AXES * CHUNK + i)
    m01 = load_lanes(local, (_AXES + 1) * CHUNK + i)
    m02 = load_lanes(local, (_AXES + 2) * CHUNK + i)
    m10 = load_lanes(local, (_AXES + 3) * CHUNK + i)
    m11 = load_lanes(local, (_AXES + 4) * CHUNK + i)
    m12 = load_lanes(local, (_AXES + 5) * CHUNK + i)
    m20 = load_lanes(local, (_AXES + 6) * CHUNK + i)
    m21 = load_lanes(local, (_AXES + 7) * CHUNK + i)
    m22 = load_lanes(local, (_AXES + 8) * CHUNK + i)
    g00, g01, g02 = t00 * m00 + t01 * m10 + t02 * m20, t00 * m01 + t01 * m11 + t02 * m21, t00 * m02 + t01 * m12 + t02 * m22
    g10, g11, g12 = t10 * m00 + t11 * m10 + t12 * m20, t10 * m01 + t11 * m11 + t12 * m21, t10 * m02 + t11 * m12 + t12 * m22
    variance_x = g00 * g00 + g01 * g01 + g02 * g02
    covariance = g00 * g10 + g01 * g11 + g02 * g12
    variance_y = g10 * g10 + g11 * g11 + g12 * g12
    c0, c1, c2 = g01 * g12 - g02 * g11, g02 * g10 - g00 * g12, g00 * g11 - g01 * g10
    area = square_root(c0 * c0 + c1 * c1 + c2 * c2)
    sigma_x, sigma_y = square_root(variance_x), square_root(variance_y)
    u = multiply_add(view[12], tan_x, view[14])
    v = multiply_add(view[13], tan_y, view[15])
    log_opacity = load_lanes(local, _LOG_OPACITY * CHUNK + i)
    # Where alpha falls to its least value, in standard deviations.
    reach = square_root(maximum((log_opacity - LOG2_ALPHA_MIN) * (TWO / LOG2_E), ZERO))
    on_image = _cover(u, v, reach * sigma_x, reach * sigma_y, canvas, screen, i)
    store_lanes(screen, _U * CHUNK + i, u)
    store_lanes(screen, _V * CHUNK + i, v)
    store_lanes(screen, _DEPTH * CHUNK + i, depth)
    store_lanes(screen, _L0 * CHUNK + i, WHITENING * sigma_y / area)
    store_lanes(screen, _L1 * CHUNK + i, ZERO - WHITENING * covariance / (sigma_y * area))
    store_lanes(screen, _L2 * CHUNK + i, WHITENING / sigma_y)
    store_lanes(screen, _SLOPE_Y * CHUNK + i, covariance / variance_x)
    store_lanes(screen, _SLOPE_X * CHUNK + i, covariance / variance_y)
    in_range = (depth > NEAR_PLANE) & (depth <= FAR_PLANE) & (area > _SMALLEST_AREA) & (area < _LARGEST_AREA)
    return in_range & on_image


@kernel
def _write_record(cloud, g, local, screen, i, record, base, channels):
    """Fill the splat record at ``base`` from lane ``i`` of the chunk."""
    store(record, base, load(screen, _U * CHUNK + i))
    store(record, base + 1, load(screen, _V * CHUNK + i))
    store(record, base + 2, load(screen, _L0 * CHUNK + i))
    store(record, base + 3, load(screen, _L1 * CHUNK + i))
    store(record, base + 4, load(screen, _L2 * CHUNK + i))
    store(record, base + 5, load(local, _LOG_OPACITY * CHUNK + i))
    store(record, base + 6, load(screen, _SLOPE_Y * CHUNK + i))
    store(record, base + 7, load(screen, _SLOPE_X * CHUNK + i))
    for k in range(3):
        store(record, base + HEAD + k, load(cloud.colors, g * 3 + k))
    store(record, base + HEAD + 3, load(screen, _DEPTH * CHUNK + i))
    if len(channels) > 4:
        for k in range(3):
            store(record, base + HEAD + 4 + k, load(screen, (_FACING + k) * CHUNK + i))


@kernel
def _project_chunk(cloud, live, start, size, local, screen, view, canvas, channels, records, boxes, keys, counts):
    """Project one chunk into one view and write its records, boxes, keys and counts."""
    stride = records.shape[1]
    visible = 0
    entries = 0
    least = np.int64(2**32)
    greatest = np.int64(0)
    for i in range(size * 4):
        store(boxes, start * 4 + i, np.int16(0))
    for group in range(0, size, LANES):
        seen = mask_bits(_project_lanes(local, group, view, canvas, screen))
        if len(channels) > 4:
            _face_camera(local, group, view, screen)
        seen &= (1 << min(LANES, size - group)) - 1
        while seen != 0:
            i = group + lowest_bit(seen)
            seen &= seen - 1
            row = start + i
            g = np.int64(load(live, row))
            _write_record(cloud, g, local, screen, i, records, row * stride, channels)
            x0, x1 = np.int64(load(screen, _BOX * CHUNK + i)), np.int64(load(screen, (_BOX + 1) * CHUNK + i))
            y0, y1 = np.int64(load(screen, (_BOX + 2) * CHUNK + i)), np.int64(load(screen, (_BOX + 3) * CHUNK + i))
            store(boxes, row * 4, np.int16(x0))
            store(boxes, row * 4 + 1, np.int16(x1))
            store(boxes, row * 4 + 2, np.int16(y0))
            store(boxes, row * 4 + 3, np.int16(y1))
            bits = float_bits(load(screen, _DEPTH * CHUNK + i))
            store(keys, start + visible, (np.uint64(bits) << np.uint64(32)) | np.uint64(row))
            least, greatest = min(least, bits), max(greatest, bits)
            visible += 1
            entries += (x1 - x0) * (y1 - y0)
    counts[0], counts[1], counts[2], counts[3] = visible, entries, least, greatest


@kernel
def project_worker(queue, cloud, live, views, canvas, channels, projection):
    """Project chunk after chunk from the queue, each into all views."""
    local = np.empty(_LOCAL_ROWS * CHUNK, np.float32)
    screen = np.empty(_SCREEN_ROWS * CHUNK, np.float32)
    local[:] = ONE  # the lanes beyond the last Gaussian are computed too, and ignored
    chunks = (live.size + CHUNK - 1) // CHUNK
    while True:
        chunk = fetch_add(queue, 1)
        if chunk >= chunks:
            break
        start = chunk * CHUNK
        size = min(CHUNK, live.size - start)
        _gather(cloud, live, start, size, local)
        _orient(local, size, channels)
        for v in range(views.shape[0]):
            _project_chunk(
                cloud,
                live,
                start,
                size,
                local,
                screen,
                views[v],
                canvas,
                channels,
                projection.records[v],
                projection.boxes[v],
                projection.keys[v],
                projection.counts[v, chunk],
            )


@parallel_kernel
def project_parallel(threads, queue, cloud, live, views, canvas, channels, projection):
    """:func:`project_worker` on several threads."""
    for _ in prange(threads):
        project_worker(queue, cloud, live, views, canvas, channels, projection)
