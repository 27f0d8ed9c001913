"""Stage 3, backward: gradients of the alpha blending, every tile back to front.

With ``T`` the transmittance in front of a splat, ``a`` its alpha, ``f`` its features and ``g`` the gradient of the
blended features, the gradient of the alpha is ``T (f . g) - behind / (1 - a)``, where ``behind`` sums
``a' T' (f' . g)`` over all splats behind, less the gradient of the final transmittance times it. ``T`` is
recovered by division. The falloff being quadratic, mean, covariance and opacity of the splat need only six moments
of ``a dL/da`` over the pixels: 1, dx, dy, dx^2, dx dy, dy^2.

Sums go to one row per (view, band, Gaussian), where a band is a share of the tile rows that one thread walks
alone: no two threads add to the same number, and the order of additions never changes.
"""

import numpy as np

from diffsplat.render.cpu_kernels.array_layout import (
    ALPHA_LIMIT,
    BLOCK_HEIGHT,
    BLOCK_WIDTH,
    BLOCKS,
    DEPTH_FEATURE,
    GRADIENT_ROW,
    HEAD,
    LOG2_ALPHA_MIN,
    LOG_OPACITY,
    NORMAL_FEATURE,
    ONE,
    ZERO,
    pixel_x,
    pixel_y,
)
from diffsplat.render.cpu_kernels.blending import (
    alpha_of,
    block_left,
    block_top,
    falloff,
    prefetch_record,
    record_of,
    tile_of,
    touched_blocks,
    whitening_of,
)
from diffsplat.render.cpu_kernels.compilation_cache import inline_kernel, kernel
from diffsplat.render.cpu_kernels.simd import (
    LANES,
    broadcast,
    broadcast_each,
    dot_each,
    fetch_add,
    lanes_maximum,
    load,
    load_each,
    load_halves,
    load_lanes,
    lowest_bit,
    mask_bits,
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


@inline_kernel
def _load_block(plane, x, y):
    """A block's pixels of an image plane ``[H, W]``, zero beyond the border."""
    height, width = plane.shape
    if x + BLOCK_WIDTH <= width and y + BLOCK_HEIGHT <= height:
        return load_halves(plane, y * width + x, (y + 1) * width + x)
    buffer = np.zeros(LANES, np.float32)
    for lane in range(LANES):
        column, line = x + lane % BLOCK_WIDTH, y + lane // BLOCK_WIDTH
        if column < width and line < height:
            store(buffer, lane, load(plane, line * width + column))
    return load_lanes(buffer, 0)


@kernel
def _start_tile(tile, view, scene, depth, upstream, scratch):
    """Turn the gradients of a tile's image pixels into those of the blended features and transmittance."""
    for block in range(BLOCKS):
        x, y = tile.x + block_left(block), tile.y + block_top(block)
        base = block * (_GRADIENTS + len(scene.channels)) * LANES
        transmittance = load_lanes(scratch, base + _TRANSMITTANCE * LANES)
        alpha = ONE - transmittance
        # Depth is a blended sum over alpha.
        grad_sum = select(alpha > ZERO, _load_block(upstream.depth[view, 0], x, y) / alpha, ZERO)
        store_lanes(scratch, base + (_GRADIENTS + DEPTH_FEATURE) * LANES, grad_sum)
        grad_alpha = _load_block(upstream.alpha[view, 0], x, y)
        grad_alpha = grad_alpha - grad_sum * _load_block(depth[view, 0], x, y)
        for k in range(3):
            # rgb = sum + transmittance * background, and transmittance = 1 - alpha
            grad_color = _load_block(upstream.rgb[view, k], x, y)
            grad_alpha = grad_alpha - grad_color * scene.background[k]
            store_lanes(scratch, base + (_GRADIENTS + k) * LANES, grad_color)
        if len(scene.channels) > NORMAL_FEATURE:
            for k in range(3):
                grad_normal = _load_block(upstream.normal[view, k], x, y)
                store_lanes(scratch, base + (_GRADIENTS + NORMAL_FEATURE + k) * LANES, grad_normal)
        store_lanes(scratch, base + _BEHIND * LANES, ZERO - transmittance * grad_alpha)


@kernel
def _load_blend_state(blend_state, view, number, scratch, channels, lasts):
    """Load how the blending of a tile ended; ``lasts`` gets each block's last entry, plus one."""
    for block in range(BLOCKS):
        base = block * (_GRADIENTS + len(channels)) * LANES
        index = ((view * blend_state.last.shape[1] + number) * BLOCKS + block) * LANES
        last = load_lanes(blend_state.last, index)
        store_lanes(scratch, base + _TRANSMITTANCE * LANES, load_lanes(blend_state.transmittance, index))
        store_lanes(scratch, base + _LAST * LANES, last)
        store(lasts, block, lanes_maximum(last))


@inline_kernel
def _blend_splat_backward(tile, record, index, touched, scratch, channels):
    """Undo the blending of one splat in the touched blocks; returns the sums of its gradients, one per lane."""
    records = tile.records
    features = broadcast_each(records, record + HEAD, channels)
    whitening = whitening_of(records, record)
    log2_opacity = broadcast(load(records, record + LOG_OPACITY))
    origin_x = np.float32(tile.x) - load(records, record)
    origin_y = np.float32(tile.y) - load(records, record + 1)
    zero = broadcast(ZERO)
    moment, moment_x, moment_y = zero, zero, zero
    moment_xx, moment_xy, moment_yy = zero, zero, zero
    grad_features = zeros_each(channels)
    while touched != 0:
        block = lowest_bit(touched)
        touched &= touched - 1
        base = block * (_GRADIENTS + len(channels)) * LANES
        dx = pixel_x() + (origin_x + np.float32(block_left(block)))
        dy = pixel_y() + (origin_y + np.float32(block_top(block)))
        log2_alpha = log2_opacity - falloff(whitening, dx, dy)
        blended = (log2_alpha >= LOG2_ALPHA_MIN) & (load_lanes(scratch, base + _LAST * LANES) > index)
        uncut = alpha_of(log2_alpha)
        alpha = select(blended, minimum(uncut, ALPHA_LIMIT), ZERO)
        inverse = ONE / (ONE - alpha)
        transmittance = load_lanes(scratch, base + _TRANSMITTANCE * LANES) * inverse
        weight = alpha * transmittance
        upstream = load_each(scratch, base + _GRADIENTS * LANES, channels)
        behind = load_lanes(scratch, base + _BEHIND * LANES)
        through = dot_each(features, upstream)
        grad_alpha = through * transmittance - behind * inverse
        store_lanes(scratch, base + _TRANSMITTANCE * LANES, transmittance)
        store_lanes(scratch, base + _BEHIND * LANES, multiply_add(through, weight, behind))
        # The cut passes no gradient on.
        grad_power = select(uncut <= ALPHA_LIMIT, grad_alpha * alpha, ZERO)
        grad_x, grad_y = grad_power * dx, grad_power * dy
        moment, moment_x, moment_y = moment + grad_power, moment_x + grad_x, moment_y + grad_y
        moment_xx = multiply_add(grad_x, dx, moment_xx)
        moment_xy = multiply_add(grad_x, dy, moment_xy)
        moment_yy = multiply_add(grad_y, dy, moment_yy)
        grad_features = multiply_add_each(weight, upstream, grad_features)
    moments = (moment, moment_x, moment_y, moment_xx, moment_xy, moment_yy)
    return sum_each(moments + grad_features)


@kernel
def _blend_tile_backward(tile, scratch, channels, lasts, rows):
    """Walk one tile back to front and add the gradients to the splats' rows."""
    last_of_block = load_lanes(lasts, 0)
    for index in range(np.int64(lanes_maximum(last_of_block)) - 1, -1, -1):
        entry = tile.first + index
        if index >= _LOOK_AHEAD:
            prefetch_record(tile, entry - _LOOK_AHEAD)
            prefetch(rows, np.int64(load(tile.entries, entry - _LOOK_AHEAD)) * GRADIENT_ROW)
        record = record_of(tile, entry)
        touched = touched_blocks(tile, record) & mask_bits(last_of_block > np.float32(index))
        if touched == 0:
            continue
        sums = _blend_splat_backward(tile, record, np.float32(index), touched, scratch, channels)
        row = np.int64(load(tile.entries, entry)) * GRADIENT_ROW
        store_lanes(rows, row, load_lanes(rows, row) + sums)


@kernel
def blend_backward(queue, scene, state, depth, upstream, rows):
    """Walk band after band of tile rows from the queue.

    ``depth`` is the depth image that was returned, ``rows`` gets the sums ``[V, bands, M, GRADIENT_ROW]``.
    """
    grid, channels = scene.grid, scene.channels
    scratch = np.empty(BLOCKS * (_GRADIENTS + len(channels)) * LANES, np.float32)
    lasts = np.empty(BLOCKS, np.float32)
    views, bands = rows.shape[0], rows.shape[1]
    while True:
        task = fetch_add(queue, 1)
        if task >= views * bands:
            break
        view, band = task // bands, task % bands
        band_rows = rows[view, band]
        band_rows[:] = ZERO
        first_row, end_row = grid.tiles_y * band // bands, grid.tiles_y * (band + 1) // bands
        for number in range(first_row * grid.tiles_x, end_row * grid.tiles_x):
            tile = tile_of(scene, state, view, number)
            if tile.first == tile.end:
                continue
            _load_blend_state(state.blend_state, view, number, scratch, channels, lasts)
            _start_tile(tile, view, scene, depth, upstream, scratch)
            _blend_tile_backward(tile, scratch, channels, lasts, band_rows)
