"""Stage 1, forward: project Gaussians to splats on the image.

Zwicker et al., "EWA Splatting" (2002), section 5: a Gaussian with covariance ``M M^T`` (``M`` = rotation times
scales) is seen, to first order, with covariance ``G G^T`` where ``G = J W M``, ``W`` the camera's rotation and ``J``
the derivative of the perspective projection at the centre. The determinant is taken as the squared cross product of
the rows of ``G``, which stays accurate for flat splats seen edge-on.
"""

import numpy as np

from diffsplat.render.cpu_kernels.array_layout import (
    CHUNK,
    DEPTH_FEATURE,
    FAR_PLANE,
    HALF,
    HEAD,
    L0,
    L1,
    L2,
    LOG2_ALPHA_MIN,
    LOG2_E,
    LOG_OPACITY,
    NEAR_PLANE,
    NORMAL_FEATURE,
    ONE,
    OPACITY_FLOOR,
    SLOPE_X,
    SLOPE_Y,
    TILE,
    TWO,
    WHITENING,
    ZERO,
)
from diffsplat.render.cpu_kernels.compilation_cache import inline_kernel, kernel
from diffsplat.render.cpu_kernels.gaussian_chunks import (
    LOG2_OPACITY,
    MEAN,
    NORMAL,
    ROW_LENGTH,
    axes,
    clamp,
    cross,
    derivative_row,
    dot,
    empty_chunk,
    load_chunk,
    row,
    set_row,
    set_triple,
    times_matrix,
    triple,
)
from diffsplat.render.cpu_kernels.simd import (
    LANES,
    ceil,
    fetch_add,
    float_bits,
    floor,
    load,
    lowest_bit,
    mask_bits,
    maximum,
    minimum,
    multiply_add,
    select,
    square_root,
    store,
)

# Rows of ``screen``, what a chunk is in one view: the head of the record and the depth, then ...
_DEPTH = HEAD
_FACING = HEAD + 1  # the normal, turned to the camera
_BOX = HEAD + 4  # first and end tile column, first and end tile row, as floats
_SCREEN_ROWS = HEAD + 8

_SMALLEST_AREA = np.float32(1e-30)
_LARGEST_AREA = np.float32(1e30)


@kernel
def find_opaque(opacities, candidates):
    """Write the indices of the Gaussians that can reach the least alpha to ``candidates``, return how many."""
    found = 0
    for i in range(opacities.size):
        store(candidates, found, np.int32(i))
        found += np.int64(load(opacities, i) >= OPACITY_FLOOR)
    return found


@inline_kernel
def _face_camera(world, i, view, screen):
    """Turn the normals of sixteen Gaussians to the side of the camera."""
    normal = triple(world, NORMAL, i)
    x, y, z = triple(world, MEAN, i)
    away = dot(normal, (x - view[20], y - view[21], z - view[22])) > ZERO
    turned = (
        select(away, ZERO - normal[0], normal[0]),
        select(away, ZERO - normal[1], normal[1]),
        select(away, ZERO - normal[2], normal[2]),
    )
    set_triple(screen, _FACING, i, turned)


@inline_kernel
def _tile_range(center, radius, size, screen, index, i):
    """Along one axis: store the first and the end tile whose pixels the splat reaches; whether there is any."""
    # First and last pixel whose centre is inside, cut to the image before anything becomes an integer.
    first = maximum(ceil(center - radius - HALF), ZERO)
    last = minimum(floor(center + radius - HALF), size - ONE)
    tile = np.float32(1 / TILE)
    set_row(screen, index, i, floor(minimum(first, size) * tile))
    set_row(screen, index + 1, i, floor(maximum(last, -ONE) * tile) + ONE)
    return last >= first


@inline_kernel
def _project_lanes(world, i, view, grid, screen):
    """Project sixteen Gaussians of a chunk; return the mask of those that can be seen."""
    x, y, z = triple(world, MEAN, i)
    depth = multiply_add(view[6], x, multiply_add(view[7], y, multiply_add(view[8], z, view[11])))
    inverse = ONE / depth
    tan_x = multiply_add(view[0], x, multiply_add(view[1], y, multiply_add(view[2], z, view[9]))) * inverse
    tan_y = multiply_add(view[3], x, multiply_add(view[4], y, multiply_add(view[5], z, view[10]))) * inverse
    matrix = axes(world, i)
    derivative_x = derivative_row(view, 0, clamp(tan_x, view[17], view[16]), view[12] * inverse)
    derivative_y = derivative_row(view, 1, clamp(tan_y, view[19], view[18]), view[13] * inverse)
    spread_x = times_matrix(derivative_x, matrix)
    spread_y = times_matrix(derivative_y, matrix)
    variance_x, variance_y = dot(spread_x, spread_x), dot(spread_y, spread_y)
    covariance = dot(spread_x, spread_y)
    normal = cross(spread_x, spread_y)
    area = square_root(dot(normal, normal))
    sigma_x, sigma_y = square_root(variance_x), square_root(variance_y)
    u, v = multiply_add(view[12], tan_x, view[14]), multiply_add(view[13], tan_y, view[15])
    log_opacity = row(world, LOG2_OPACITY, i)
    # Where alpha falls to its least value, in standard deviations.
    reach = square_root(maximum((log_opacity - LOG2_ALPHA_MIN) * (TWO / LOG2_E), ZERO))
    covered_x = _tile_range(u, reach * sigma_x, np.float32(grid.width), screen, _BOX, i)
    covered_y = _tile_range(v, reach * sigma_y, np.float32(grid.height), screen, _BOX + 2, i)
    set_row(screen, 0, i, u)
    set_row(screen, 1, i, v)
    set_row(screen, L0, i, WHITENING * sigma_y / area)
    set_row(screen, L1, i, -WHITENING * covariance / (sigma_y * area))
    set_row(screen, L2, i, WHITENING / sigma_y)
    set_row(screen, LOG_OPACITY, i, log_opacity)
    set_row(screen, SLOPE_Y, i, covariance / variance_x)
    set_row(screen, SLOPE_X, i, covariance / variance_y)
    set_row(screen, _DEPTH, i, depth)
    in_range = (depth > NEAR_PLANE) & (depth <= FAR_PLANE) & (area > _SMALLEST_AREA) & (area < _LARGEST_AREA)
    return in_range & covered_x & covered_y


@inline_kernel
def _write_record(gaussians, g, screen, i, records, base, channels):
    """Fill the splat record at ``base`` from column ``i`` of the screen."""
    for k in range(HEAD):
        store(records, base + k, load(screen, k * ROW_LENGTH + i))
    for k in range(3):
        store(records, base + HEAD + k, load(gaussians.colors, g * 3 + k))
    store(records, base + HEAD + DEPTH_FEATURE, load(screen, _DEPTH * ROW_LENGTH + i))
    if len(channels) > NORMAL_FEATURE:
        for k in range(3):
            facing = load(screen, (_FACING + k) * ROW_LENGTH + i)
            store(records, base + HEAD + NORMAL_FEATURE + k, facing)


@inline_kernel
def _write_box(screen, i, boxes, index):
    """Write the tiles that the splat touches; return how many they are."""
    for k in range(4):
        store(boxes, index * 4 + k, np.int16(load(screen, (_BOX + k) * ROW_LENGTH + i)))
    columns = np.int64(load(boxes, index * 4 + 1)) - load(boxes, index * 4)
    return columns * (np.int64(load(boxes, index * 4 + 3)) - load(boxes, index * 4 + 2))


@kernel
def _project_chunk(scene, projection, v, chunk, world, screen):
    """Project one chunk into view ``v`` and write its records, boxes, keys and counts."""
    records, boxes, keys = projection.records[v], projection.boxes[v], projection.keys[v]
    view, stride = scene.views[v], records.shape[1]
    start = chunk * CHUNK
    size = min(CHUNK, scene.candidates.size - start)
    visible, entries = 0, 0
    least, greatest = np.int64(2**32), np.int64(0)
    for i in range(size * 4):
        store(boxes, start * 4 + i, np.int16(0))
    for group in range(0, size, LANES):
        visible_lanes = mask_bits(_project_lanes(world, group, view, scene.grid, screen))
        if len(scene.channels) > NORMAL_FEATURE:
            _face_camera(world, group, view, screen)
        visible_lanes &= (1 << min(LANES, size - group)) - 1
        while visible_lanes != 0:
            i = group + lowest_bit(visible_lanes)
            visible_lanes &= visible_lanes - 1
            index = start + i
            g = np.int64(load(scene.candidates, index))
            _write_record(scene.gaussians, g, screen, i, records, index * stride, scene.channels)
            entries += _write_box(screen, i, boxes, index)
            bits = float_bits(load(screen, _DEPTH * ROW_LENGTH + i))
            store(keys, start + visible, (np.uint64(bits) << np.uint64(32)) | np.uint64(index))
            least, greatest = min(least, bits), max(greatest, bits)
            visible += 1
    counts = projection.counts[v, chunk]
    counts[0], counts[1], counts[2], counts[3] = visible, entries, least, greatest


@kernel
def project_forward(queue, scene, projection):
    """Project chunk after chunk from the queue, each into all views."""
    world = empty_chunk()
    screen = np.empty(_SCREEN_ROWS * ROW_LENGTH, np.float32)
    while True:
        chunk = fetch_add(queue, 1)
        if chunk >= projection.counts.shape[1]:
            break
        load_chunk(scene, chunk, world)
        for v in range(scene.views.shape[0]):
            _project_chunk(scene, projection, v, chunk, world, screen)
