"""Stage 3, forward: alpha-blend the splats of every tile front to back.

A tile is walked in batches. Each entry of a batch is first tested against the tile's sixteen blocks at once and
noted in the lists of those it touches; then every block runs through its own list with its sixteen pixels in
registers, and stops as soon as all of them are opaque.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffsplat.render.cpu_kernels.array_layout import (
    ALPHA_LIMIT,
    BLOCK_HEIGHT,
    BLOCK_WIDTH,
    BLOCKS,
    BLOCKS_PER_COLUMN,
    DEPTH_FEATURE,
    HEAD,
    L0,
    L1,
    L2,
    LOG2_ALPHA_MIN,
    LOG_OPACITY,
    NORMAL_FEATURE,
    ONE,
    SLOPE_X,
    SLOPE_Y,
    STOP,
    TILE,
    TOUCH_SLACK,
    ZERO,
    Float32,
    block_x,
    block_y,
    pixel_x,
    pixel_y,
)
from diffsplat.render.cpu_kernels.compilation_cache import inline_kernel, kernel
from diffsplat.render.cpu_kernels.simd import (
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

BATCH = 256
_LOOK_AHEAD = 8
_EXPONENT_FLOOR = np.float32(-60)  # keeps exp2 in its domain; such lanes are masked out

# Scratch of a block, in vectors: transmittance (negative once the pixel is finished), last entry, features.
_TRANSMITTANCE = 0
_LAST = 1
_TOTALS = 2


class Tile(NamedTuple):
    """A tile of one view with its part of the entries."""

    records: Float32  # [M, record size]
    entries: NDArray[np.int32]  # of the view
    first: int
    end: int
    x: int  # pixels
    y: int


class BlockLists(NamedTuple):
    """For each block the entries of the batch that touch it, counted from the start of the batch."""

    items: NDArray[np.int16]  # [BLOCKS * BATCH]
    lengths: NDArray[np.int64]  # [BLOCKS]


@inline_kernel
def tile_of(scene, state, view, tile):
    """Tile number ``tile`` of a view."""
    grid, bins = scene.grid, state.bins
    return Tile(
        state.projection.records[view],
        bins.entries[bins.view_starts[view] : bins.view_starts[view + 1]],
        bins.tile_starts[view, tile],
        bins.tile_starts[view, tile + 1],
        tile % grid.tiles_x * TILE,
        tile // grid.tiles_x * TILE,
    )


@inline_kernel
def block_left(block):
    """Columns from the tile's left edge to the block's."""
    return block // BLOCKS_PER_COLUMN * BLOCK_WIDTH


@inline_kernel
def block_top(block):
    """Rows from the tile's upper edge to the block's."""
    return block % BLOCKS_PER_COLUMN * BLOCK_HEIGHT


@inline_kernel
def record_of(tile, entry):
    """Where the record of an entry begins."""
    return np.int64(load(tile.entries, entry)) * tile.records.shape[1]


@inline_kernel
def prefetch_record(tile, entry):
    """Ask for the record of an entry that comes soon."""
    record = record_of(tile, entry)
    prefetch(tile.records, record)
    prefetch(tile.records, record + HEAD + DEPTH_FEATURE)


@inline_kernel
def touched_blocks(tile, record):
    """Which of the tile's sixteen blocks (bits) have a pixel rectangle that the splat reaches with the least alpha.

    The log-alpha is concave, so its maximum over a rectangle without the centre lies on a side that faces the
    centre. Per axis: take the nearest coordinate of the rectangle, and on that line the nearest to the best.
    """
    records = tile.records
    zero = broadcast(ZERO)
    left = block_x() + (np.float32(tile.x) - load(records, record))
    top = block_y() + (np.float32(tile.y) - load(records, record + 1))
    right = left + np.float32(BLOCK_WIDTH - 1)
    bottom = top + np.float32(BLOCK_HEIGHT - 1)
    near_x = minimum(maximum(zero, left), right)
    near_y = minimum(maximum(zero, top), bottom)
    best_y = minimum(maximum(near_x * load(records, record + SLOPE_Y), top), bottom)
    best_x = minimum(maximum(near_y * load(records, record + SLOPE_X), left), right)
    whitening = whitening_of(records, record)
    distance = minimum(falloff(whitening, near_x, best_y), falloff(whitening, best_x, near_y))
    reach = load(records, record + LOG_OPACITY) - LOG2_ALPHA_MIN + TOUCH_SLACK
    return mask_bits(distance <= reach)


@inline_kernel
def whitening_of(records, record):
    """The three numbers of a splat's record that turn an offset in pixels into one in standard deviations."""
    return load(records, record + L0), load(records, record + L1), load(records, record + L2)


@inline_kernel
def falloff(whitening, dx, dy):
    """By how much log2 alpha falls from the centre of a splat to an offset from it."""
    along = multiply_add(whitening[0], dx, dy * whitening[1])
    across = dy * whitening[2]
    return multiply_add(along, along, across * across)


@inline_kernel
def alpha_of(log2_alpha):
    """Alpha before the cut, from its base-2 logarithm."""
    return exp2(maximum(log2_alpha, _EXPONENT_FLOOR))


@kernel
def list_blocks(tile, start, end, alive, lists):
    """Note every entry of a batch in the lists of the blocks that it touches and that are still alive."""
    for block in range(BLOCKS):
        store(lists.lengths, block, 0)
    for entry in range(start, end):
        if entry + _LOOK_AHEAD < tile.end:
            prefetch_record(tile, entry + _LOOK_AHEAD)
        touched = touched_blocks(tile, record_of(tile, entry)) & alive
        while touched != 0:
            block = lowest_bit(touched)
            touched &= touched - 1
            length = load(lists.lengths, block)
            store(lists.items, block * BATCH + length, np.int16(entry - start))
            store(lists.lengths, block, length + 1)


@kernel
def _blend_block(tile, start, block, lists, scratch, channels, save_state):
    """Blend a batch's list into one block. Returns whether some pixel of the block is still transparent."""
    records = tile.records
    base = block * (_TOTALS + len(channels)) * LANES
    transmittance = load_lanes(scratch, base + _TRANSMITTANCE * LANES)
    last = load_lanes(scratch, base + _LAST * LANES)
    totals = load_each(scratch, base + _TOTALS * LANES, channels)
    x = pixel_x() + np.float32(tile.x + block_left(block))
    y = pixel_y() + np.float32(tile.y + block_top(block))
    alive = True
    for item in range(load(lists.lengths, block)):
        entry = start + np.int64(load(lists.items, block * BATCH + item))
        record = record_of(tile, entry)
        whitening = whitening_of(records, record)
        distance = falloff(whitening, x - load(records, record), y - load(records, record + 1))
        log2_alpha = load(records, record + LOG_OPACITY) - distance
        drawn = log2_alpha >= LOG2_ALPHA_MIN
        alpha = minimum(alpha_of(log2_alpha), ALPHA_LIMIT)
        weight = alpha * transmittance
        remaining = transmittance - weight
        # Finished pixels have a negative transmittance and fail this as well.
        blended = drawn & (remaining > STOP)
        weight = select(blended, weight, ZERO)
        totals = multiply_add_each(weight, broadcast_each(records, record + HEAD, channels), totals)
        transmittance = select(blended, remaining, transmittance)
        if save_state:
            last = select(blended, np.float32(entry - tile.first + 1), last)
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
def _blend_tile(tile, lists, scratch, channels, save_state):
    """Blend all entries of a tile into the scratch of its blocks."""
    block_size = (_TOTALS + len(channels)) * LANES
    for block in range(BLOCKS):
        store_lanes(scratch, block * block_size + _TRANSMITTANCE * LANES, broadcast(ONE))
        store_lanes(scratch, block * block_size + _LAST * LANES, broadcast(ZERO))
        store_each(scratch, block * block_size + _TOTALS * LANES, zeros_each(channels))
    alive = np.int64((1 << BLOCKS) - 1)
    start = tile.first
    while start < tile.end and alive != 0:
        end = min(tile.end, start + BATCH)
        list_blocks(tile, start, end, alive, lists)
        for block in range(BLOCKS):
            if load(lists.lengths, block) > 0 and not _blend_block(
                tile, start, block, lists, scratch, channels, save_state
            ):
                alive &= ~(1 << block)
        start = end


@inline_kernel
def store_block(plane, x, y, values):
    """Write a block's pixels to an image plane ``[H, W]``, leaving out those beyond the border."""
    height, width = plane.shape
    if x + BLOCK_WIDTH <= width and y + BLOCK_HEIGHT <= height:
        store_halves(plane, y * width + x, (y + 1) * width + x, values)
    else:
        buffer = np.empty(LANES, np.float32)
        store_lanes(buffer, 0, values)
        for lane in range(LANES):
            column, line = x + lane % BLOCK_WIDTH, y + lane // BLOCK_WIDTH
            if column < width and line < height:
                store(plane, line * width + column, load(buffer, lane))


@kernel
def _finish_tile(tile, view, scratch, background, channels, images):
    """Composite the blocks on the background and write them to the images."""
    for block in range(BLOCKS):
        x, y = tile.x + block_left(block), tile.y + block_top(block)
        if x >= images.alpha.shape[3] or y >= images.alpha.shape[2]:
            continue
        base = block * (_TOTALS + len(channels)) * LANES
        transmittance = absolute(load_lanes(scratch, base + _TRANSMITTANCE * LANES))
        totals = base + _TOTALS * LANES
        for k in range(3):
            color = load_lanes(scratch, totals + k * LANES)
            store_block(images.rgb[view, k], x, y, multiply_add(transmittance, background[k], color))
        alpha = ONE - transmittance
        store_block(images.alpha[view, 0], x, y, alpha)
        depth = load_lanes(scratch, totals + DEPTH_FEATURE * LANES) / alpha
        store_block(images.depth[view, 0], x, y, select(alpha > ZERO, depth, ZERO))
        if len(channels) > NORMAL_FEATURE:
            for k in range(3):
                normal = load_lanes(scratch, totals + (NORMAL_FEATURE + k) * LANES)
                store_block(images.normal[view, k], x, y, normal)


@kernel
def _save_blend_state(blend_state, view, tile, scratch, channels):
    """Keep how the blending of a tile ended."""
    for block in range(BLOCKS):
        base = block * (_TOTALS + len(channels)) * LANES
        index = ((view * blend_state.last.shape[1] + tile) * BLOCKS + block) * LANES
        transmittance = absolute(load_lanes(scratch, base + _TRANSMITTANCE * LANES))
        store_lanes(blend_state.transmittance, index, transmittance)
        store_lanes(blend_state.last, index, load_lanes(scratch, base + _LAST * LANES))


@kernel
def blend_forward(queue, scene, state, images):
    """Blend tile after tile from the queue. The blend state is written unless it has no elements."""
    channels = scene.channels
    scratch = np.empty(BLOCKS * (_TOTALS + len(channels)) * LANES, np.float32)
    lists = BlockLists(np.empty(BLOCKS * BATCH, np.int16), np.empty(BLOCKS, np.int64))
    tiles = scene.grid.tiles_x * scene.grid.tiles_y
    save_state = state.blend_state.last.size > 0
    while True:
        task = fetch_add(queue, 1)
        if task >= scene.views.shape[0] * tiles:
            break
        view = task // tiles
        tile = tile_of(scene, state, view, task % tiles)
        _blend_tile(tile, lists, scratch, channels, save_state)
        _finish_tile(tile, view, scratch, scene.background, channels, images)
        if save_state:
            _save_blend_state(state.blend_state, view, task % tiles, scratch, channels)
