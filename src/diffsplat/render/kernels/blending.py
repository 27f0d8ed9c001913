"""Stage 3: blend the splats of every tile front to back.

A tile is walked in batches. Each entry of a batch is first tested against the tile's sixteen blocks at once and
noted in the lists of those it touches; then every block runs through its own list with its sixteen pixels in
registers, and stops as soon as all of them are opaque.
"""

import numpy as np
from numba import prange

from diffsplat.render.kernels.compilation import kernel, parallel_kernel
from diffsplat.render.kernels.layout import (
    ALPHA_LIMIT,
    BLOCK_HEIGHT,
    BLOCK_WIDTH,
    BLOCKS,
    BLOCKS_PER_COLUMN,
    DEPTH_FEATURE,
    HEAD,
    LOG2_ALPHA_MIN,
    ONE,
    STOP,
    TILE,
    TOUCH_SLACK,
    ZERO,
    block_x,
    block_y,
    pixel_x,
    pixel_y,
)
from diffsplat.render.kernels.simd import (
    LANES,
    absolute,
    and_not,
    any_lane,
    broadcast,
    broadcast_each,
    exp2,
    fetch_add,
    load,
    load_each,
    load_lanes,
    lowest_bit,
    mask_bits,
    maximum,
    minimum,
    multiply_add,
    multiply_add_each,
    negative_absolute,
    prefetch,
    select,
    store,
    store_each,
    store_halves,
    store_lanes,
    zeros_each,
)

_BATCH = 256
_LOOK_AHEAD = 8
_EXPONENT_FLOOR = np.float32(-60)  # keeps exp2 in its domain; such lanes are masked out

# Scratch of a block, in vectors: transmittance (negative once the pixel is finished), last entry, features.
_TRANSMITTANCE = 0
_LAST = 1
_TOTALS = 2


@kernel
def touched_blocks(records, base, tile_x, tile_y):
    """Which of the tile's sixteen blocks (bits) have a pixel rectangle that the splat reaches with the least alpha.

    The log-alpha is concave, so its maximum over a rectangle without the centre lies on a side that faces the
    centre. Per axis: take the nearest coordinate of the rectangle, and on that line the nearest to the best.
    """
    zero = broadcast(ZERO)
    left = block_x() + (np.float32(tile_x) - load(records, base))
    top = block_y() + (np.float32(tile_y) - load(records, base + 1))
    right = left + np.float32(BLOCK_WIDTH - 1)
    bottom = top + np.float32(BLOCK_HEIGHT - 1)
    near_x = minimum(maximum(zero, left), right)
    near_y = minimum(maximum(zero, top), bottom)
    best_y = minimum(maximum(near_x * load(records, base + 6), top), bottom)
    best_x = minimum(maximum(near_y * load(records, base + 7), left), right)
    l0, l1, l2 = broadcast(load(records, base + 2)), load(records, base + 3), load(records, base + 4)
    along_1 = multiply_add(l0, near_x, best_y * l1)
    along_2 = multiply_add(l0, best_x, near_y * l1)
    across_1, across_2 = best_y * l2, near_y * l2
    distance_1 = multiply_add(along_1, along_1, across_1 * across_1)
    distance_2 = multiply_add(along_2, along_2, across_2 * across_2)
    reach = load(records, base + 5) - LOG2_ALPHA_MIN + TOUCH_SLACK
    return mask_bits(minimum(distance_1, distance_2) <= reach)


@kernel
def log_alpha(records, base, dx, dy):
    """log2 of the splat's alpha before the cut, at an offset from its centre."""
    along = multiply_add(load(records, base + 2), dx, dy * load(records, base + 3))
    across = dy * load(records, base + 4)
    return load(records, base + 5) - multiply_add(along, along, across * across)


@kernel
def alpha_before_cut(log_alpha):
    """Alpha from its base-2 logarithm."""
    return exp2(maximum(log_alpha, _EXPONENT_FLOOR))


@kernel
def _list_blocks(records, entries, start, end, tile_x, tile_y, alive, lists, lengths):
    """Note every entry of a batch in the lists of the blocks that it touches and that are still alive."""
    stride = records.shape[1]
    for block in range(BLOCKS):
        store(lengths, block, 0)
    for k in range(start, end):
        if k + _LOOK_AHEAD < end:
            ahead = np.int64(load(entries, k + _LOOK_AHEAD)) * stride
            prefetch(records, ahead)
            prefetch(records, ahead + 11)
        touched = touched_blocks(records, np.int64(load(entries, k)) * stride, tile_x, tile_y) & alive
        while touched != 0:
            block = lowest_bit(touched)
            touched &= touched - 1
            length = load(lengths, block)
            store(lists, block * _BATCH + length, np.int16(k - start))
            store(lengths, block, length + 1)


@kernel
def _blend_block(records, entries, first, start, tile_x, tile_y, block, lists, length, scratch, channels, trace):
    """Blend a batch's list into one block. Returns whether some pixel of the block is still transparent."""
    base = block * (_TOTALS + len(channels)) * LANES
    transmittance = load_lanes(scratch, base + _TRANSMITTANCE * LANES)
    last = load_lanes(scratch, base + _LAST * LANES)
    totals = load_each(scratch, base + _TOTALS * LANES, channels)
    x = pixel_x() + np.float32(tile_x + block // BLOCKS_PER_COLUMN * BLOCK_WIDTH)
    y = pixel_y() + np.float32(tile_y + block % BLOCKS_PER_COLUMN * BLOCK_HEIGHT)
    stride = records.shape[1]
    alive = True
    for item in range(length):
        k = start + np.int64(load(lists, block * _BATCH + item))
        record = np.int64(load(entries, k)) * stride
        power = log_alpha(records, record, x - load(records, record), y - load(records, record + 1))
        drawn = power >= LOG2_ALPHA_MIN
        alpha = minimum(alpha_before_cut(power), ALPHA_LIMIT)
        remaining = transmittance - alpha * transmittance
        # Finished pixels have a negative transmittance and fail this as well.
        blended = drawn & (remaining > STOP)
        weight = select(blended, alpha * transmittance, ZERO)
        totals = multiply_add_each(weight, broadcast_each(records, record + HEAD, channels), totals)
        transmittance = select(blended, remaining, transmittance)
        if trace:
            last = select(blended, np.float32(k - first + 1), last)
        finished = and_not(drawn, blended)
        if any_lane(finished):
            transmittance = select(finished, negative_absolute(transmittance), transmittance)
            if not any_lane(transmittance > ZERO):
                alive = False
                break
    store_lanes(scratch, base + _TRANSMITTANCE * LANES, transmittance)
    store_lanes(scratch, base + _LAST * LANES, last)
    store_each(scratch, base + _TOTALS * LANES, totals)
    return alive


@kernel
def _blend_tile(records, entries, first, end, tile_x, tile_y, scratch, lists, lengths, channels, trace):
    """Blend the entries from ``first`` to ``end`` into the scratch of the tile's blocks."""
    block_size = (_TOTALS + len(channels)) * LANES
    for block in range(BLOCKS):
        store_lanes(scratch, block * block_size + _TRANSMITTANCE * LANES, broadcast(ONE))
        store_lanes(scratch, block * block_size + _LAST * LANES, broadcast(ZERO))
        store_each(scratch, block * block_size + _TOTALS * LANES, zeros_each(channels))
    alive = np.int64((1 << BLOCKS) - 1)
    start = first
    while start < end and alive != 0:
        stop = min(end, start + _BATCH)
        _list_blocks(records, entries, start, stop, tile_x, tile_y, alive, lists, lengths)
        for block in range(BLOCKS):
            length = load(lengths, block)
            if length > 0 and not _blend_block(
                records, entries, first, start, tile_x, tile_y, block, lists, length, scratch, channels, trace
            ):
                alive &= ~(1 << block)
        start = stop


@kernel
def _put_block(plane, x, y, values):
    """Write a block's pixels to an image plane ``[H, W]``, leaving out those beyond the border."""
    height, width = plane.shape
    if x + BLOCK_WIDTH <= width and y + BLOCK_HEIGHT <= height:
        store_halves(plane, y * width + x, (y + 1) * width + x, values)
    else:
        buffer = np.empty(LANES, np.float32)
        store_lanes(buffer, 0, values)
        for lane in range(LANES):
            column, row = x + lane % BLOCK_WIDTH, y + lane // BLOCK_WIDTH
            if column < width and row < height:
                store(plane, row * width + column, load(buffer, lane))


@kernel
def _finish_tile(images, view, tile, tile_x, tile_y, scratch, background, channels, trail, trace):
    """Composite the blocks on the background and write them to the images."""
    for block in range(BLOCKS):
        x = tile_x + block // BLOCKS_PER_COLUMN * BLOCK_WIDTH
        y = tile_y + block % BLOCKS_PER_COLUMN * BLOCK_HEIGHT
        base = block * (_TOTALS + len(channels)) * LANES
        transmittance = absolute(load_lanes(scratch, base + _TRANSMITTANCE * LANES))
        if trace:
            place = ((view * trail.last.shape[1] + tile) * BLOCKS + block) * LANES
            store_lanes(trail.transmittance, place, transmittance)
            store_lanes(trail.last, place, load_lanes(scratch, base + _LAST * LANES))
        if x >= images.alpha.shape[3] or y >= images.alpha.shape[2]:
            continue
        totals = base + _TOTALS * LANES
        for k in range(3):
            color = load_lanes(scratch, totals + k * LANES)
            _put_block(images.rgb[view, k], x, y, multiply_add(transmittance, background[k], color))
        alpha = ONE - transmittance
        _put_block(images.alpha[view, 0], x, y, alpha)
        depth = load_lanes(scratch, totals + DEPTH_FEATURE * LANES) / alpha
        _put_block(images.depth[view, 0], x, y, select(alpha > ZERO, depth, ZERO))
        if len(channels) > 4:
            for k in range(3):
                _put_block(images.normal[view, k], x, y, load_lanes(scratch, totals + (4 + k) * LANES))


@kernel
def blend_worker(queue, projection, bins, canvas, background, channels, images, trail):
    """Blend tile after tile from the queue. The trail is written unless it has no elements."""
    scratch = np.empty(BLOCKS * (_TOTALS + len(channels)) * LANES, np.float32)
    lists = np.empty(BLOCKS * _BATCH, np.int16)
    lengths = np.empty(BLOCKS, np.int64)
    tiles = canvas.tiles_x * canvas.tiles_y
    trace = trail.last.size > 0
    while True:
        task = fetch_add(queue, 1)
        if task >= projection.records.shape[0] * tiles:
            break
        view, tile = task // tiles, task % tiles
        tile_x, tile_y = tile % canvas.tiles_x * TILE, tile // canvas.tiles_x * TILE
        entries = bins.entries[bins.view_starts[view] : bins.view_starts[view + 1]]
        first, end = bins.tile_starts[view, tile], bins.tile_starts[view, tile + 1]
        records = projection.records[view]
        _blend_tile(records, entries, first, end, tile_x, tile_y, scratch, lists, lengths, channels, trace)
        _finish_tile(images, view, tile, tile_x, tile_y, scratch, background, channels, trail, trace)


@parallel_kernel
def blend_parallel(threads, queue, projection, bins, canvas, background, channels, images, trail):
    """:func:`blend_worker` on several threads."""
    for _ in prange(threads):
        blend_worker(queue, projection, bins, canvas, background, channels, images, trail)
