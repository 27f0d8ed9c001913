"""Stage 4, backward: walk the blending of every tile back to front.

With ``T`` the transmittance in front of a splat, ``a`` its alpha, ``f`` its features and ``g`` the gradient of the
blended features, the gradient of the alpha is ``T (f . g) - behind / (1 - a)``, where ``behind`` sums
``a' T' (f' . g)`` over all splats behind, less the gradient of the final transmittance times it. ``T`` is
recovered by division. The falloff being quadratic, mean, covariance and opacity of the splat need only six moments
of ``a dL/da`` over the pixels: 1, dx, dy, dx^2, dx dy, dy^2.

Sums go to one row per (view, band, Gaussian), where a band is a share of the tile rows that one thread walks
alone: no two threads add to the same number, and the order of additions never changes.
"""

import numpy as np
from numba import prange

from diffsplat.render.kernels.blending import alpha_before_cut, log_alpha, touched_blocks
from diffsplat.render.kernels.compilation import kernel, parallel_kernel
from diffsplat.render.kernels.layout import (
    ALPHA_LIMIT,
    BLOCK_HEIGHT,
    BLOCK_WIDTH,
    BLOCKS,
    BLOCKS_PER_COLUMN,
    DEPTH_FEATURE,
    GRADIENT_ROW,
    HEAD,
    LOG2_ALPHA_MIN,
    ONE,
    TILE,
    ZERO,
    pixel_x,
    pixel_y,
)
from diffsplat.render.kernels.simd import (
    LANES,
    broadcast,
    broadcast_each,
    dot_each,
    exp2,
    fetch_add,
    lanes_maximum,
    load,
    load_each,
    load_halves,
    load_lanes,
    lowest_bit,
    mask_bits,
    maximum,
    minimum,
    multiply_add,
    multiply_add_each,
    prefetch,
    select,
    store,
    store_lanes,
    sum_each,
    zeros_each,
)

_LOOK_AHEAD = 8
# Scratch of a block, in vectors: transmittance, what lies behind, last entry, gradients of the features.
_TRANSMITTANCE = 0
_BEHIND = 1
_LAST = 2
_GRADIENTS = 3


@kernel
def _take_block(plane, x, y):
    """A block's pixels of an image plane ``[H, W]``, zero beyond the border."""
    height, width = plane.shape
    if x + BLOCK_WIDTH <= width and y + BLOCK_HEIGHT <= height:
        return load_halves(plane, y * width + x, (y + 1) * width + x)
    buffer = np.zeros(LANES, np.float32)
    for lane in range(LANES):
        column, row = x + lane % BLOCK_WIDTH, y + lane // BLOCK_WIDTH
        if column < width and row < height:
            store(buffer, lane, load(plane, row * width + column))
    return load_lanes(buffer, 0)


@kernel
def _start_block(images, gradients, trail, background, channels, view, tile, x, y, block, scratch):
    """Turn the gradients of a block's image pixels into those of its blended features and transmittance."""
    base = block * (_GRADIENTS + len(channels)) * LANES
    place = ((view * trail.last.shape[1] + tile) * BLOCKS + block) * LANES
    transmittance = load_lanes(trail.transmittance, place)
    alpha = ONE - transmittance
    on_alpha = _take_block(gradients.alpha[view, 0], x, y)
    # depth = sum / alpha
    on_depth = _take_block(gradients.depth[view, 0], x, y)
    on_sum = select(alpha > ZERO, on_depth / alpha, ZERO)
    on_alpha = on_alpha - on_sum * _take_block(images.depth[view, 0], x, y)
    for k in range(3):
        # rgb = sum + transmittance * background, and transmittance = 1 - alpha
        on_color = _take_block(gradients.rgb[view, k], x, y)
        on_alpha = on_alpha - on_color * background[k]
        store_lanes(scratch, base + (_GRADIENTS + k) * LANES, on_color)
    store_lanes(scratch, base + (_GRADIENTS + DEPTH_FEATURE) * LANES, on_sum)
    if len(channels) > 4:
        for k in range(3):
            on_normal = _take_block(gradients.normal[view, k], x, y)
            store_lanes(scratch, base + (_GRADIENTS + 4 + k) * LANES, on_normal)
    store_lanes(scratch, base + _TRANSMITTANCE * LANES, transmittance)
    store_lanes(scratch, base + _BEHIND * LANES, ZERO - transmittance * on_alpha)
    store_lanes(scratch, base + _LAST * LANES, load_lanes(trail.last, place))


@kernel
def _unblend_splat(records, record, index, touched, tile_x, tile_y, scratch, channels):
    """Step back over one splat in the touched blocks; returns its sums, one per lane."""
    features = broadcast_each(records, record + HEAD, channels)
    origin_x = np.float32(tile_x) - load(records, record)
    origin_y = np.float32(tile_y) - load(records, record + 1)
    zero = broadcast(ZERO)
    moment, moment_x, moment_y = zero, zero, zero
    moment_xx, moment_xy, moment_yy = zero, zero, zero
    on_features = zeros_each(channels)
    block_size = (_GRADIENTS + len(channels)) * LANES
    while touched != 0:
        block = lowest_bit(touched)
        touched &= touched - 1
        base = block * block_size
        dx = pixel_x() + (origin_x + np.float32(block // BLOCKS_PER_COLUMN * BLOCK_WIDTH))
        dy = pixel_y() + (origin_y + np.float32(block % BLOCKS_PER_COLUMN * BLOCK_HEIGHT))
        power = log_alpha(records, record, dx, dy)
        blended = (power >= LOG2_ALPHA_MIN) & (load_lanes(scratch, base + _LAST * LANES) > index)
        uncut = alpha_before_cut(power)
        alpha = select(blended, minimum(uncut, ALPHA_LIMIT), ZERO)
        clearness = ONE / (ONE - alpha)
        transmittance = load_lanes(scratch, base + _TRANSMITTANCE * LANES) * clearness
        weight = alpha * transmittance
        upstream = load_each(scratch, base + _GRADIENTS * LANES, channels)
        behind = load_lanes(scratch, base + _BEHIND * LANES)
        through = dot_each(features, upstream)
        on_alpha = through * transmittance - behind * clearness
        store_lanes(scratch, base + _TRANSMITTANCE * LANES, transmittance)
        store_lanes(scratch, base + _BEHIND * LANES, multiply_add(through, weight, behind))
        # The cut passes no gradient on.
        on_power = select(uncut <= ALPHA_LIMIT, on_alpha * alpha, ZERO)
        on_x, on_y = on_power * dx, on_power * dy
        moment, moment_x, moment_y = moment + on_power, moment_x + on_x, moment_y + on_y
        moment_xx = multiply_add(on_x, dx, moment_xx)
        moment_xy = multiply_add(on_x, dy, moment_xy)
        moment_yy = multiply_add(on_y, dy, moment_yy)
        on_features = multiply_add_each(weight, upstream, on_features)
    return sum_each((moment, moment_x, moment_y, moment_xx, moment_xy, moment_yy) + on_features)


@kernel
def _unblend_tile(records, entries, first, tile_x, tile_y, scratch, channels, rows):
    """Walk one tile back to front and add the sums to the splats' rows."""
    lasts = np.empty(BLOCKS, np.float32)
    block_size = (_GRADIENTS + len(channels)) * LANES
    for block in range(BLOCKS):
        store(lasts, block, lanes_maximum(load_lanes(scratch, block * block_size + _LAST * LANES)))
    last_of_block = load_lanes(lasts, 0)
    stride = records.shape[1]
    for k in range(np.int64(lanes_maximum(last_of_block)) - 1, -1, -1):
        splat = np.int64(load(entries, first + k))
        if k >= _LOOK_AHEAD:
            ahead = np.int64(load(entries, first + k - _LOOK_AHEAD))
            prefetch(records, ahead * stride)
            prefetch(records, ahead * stride + 11)
            prefetch(rows, ahead * GRADIENT_ROW)
        index = np.float32(k)
        touched = touched_blocks(records, splat * stride, tile_x, tile_y) & mask_bits(last_of_block > index)
        if touched == 0:
            continue
        sums = _unblend_splat(records, splat * stride, index, touched, tile_x, tile_y, scratch, channels)
        row = splat * GRADIENT_ROW
        store_lanes(rows, row, load_lanes(rows, row) + sums)


@kernel
def unblend_worker(queue, projection, bins, canvas, background, channels, images, gradients, trail, rows):
    """Walk band after band of tile rows from the queue; ``rows`` is ``[V, bands, M, GRADIENT_ROW]``."""
    scratch = np.empty(BLOCKS * (_GRADIENTS + len(channels)) * LANES, np.float32)
    views, bands = rows.shape[:2]
    while True:
        task = fetch_add(queue, 1)
        if task >= views * bands:
            break
        view, band = task // bands, task % bands
        band_rows = rows[view, band]
        band_rows[:] = ZERO
        entries = bins.entries[bins.view_starts[view] : bins.view_starts[view + 1]]
        first_row, end_row = canvas.tiles_y * band // bands, canvas.tiles_y * (band + 1) // bands
        for tile in range(first_row * canvas.tiles_x, end_row * canvas.tiles_x):
            first = bins.tile_starts[view, tile]
            if first == bins.tile_starts[view, tile + 1]:
                continue
            tile_x, tile_y = tile % canvas.tiles_x * TILE, tile // canvas.tiles_x * TILE
            for block in range(BLOCKS):
                x = tile_x + block // BLOCKS_PER_COLUMN * BLOCK_WIDTH
                y = tile_y + block % BLOCKS_PER_COLUMN * BLOCK_HEIGHT
                _start_block(
                    images, gradients, trail, background, channels, view, tile, x, y, block, scratch
                )
            _unblend_tile(
                projection.records[view], entries, first, tile_x, tile_y, scratch, channels, band_rows
            )


@parallel_kernel
def unblend_parallel(
    threads, queue, projection, bins, canvas, background, channels, images, gradients, trail, rows
):
    """:func:`unblend_worker` on several threads."""
    for _ in prange(threads):
        unblend_worker(queue, projection, bins, canvas, background, channels, images, gradients, trail, rows)
