"""Stage 2: bin splats into tiles, front to back.

The visible splats of a view are sorted by depth once (radix sort of the bits of camera z; ties keep the input
order), then appended to the lists of the tiles in their bounding boxes in that order, so that no tile sorts again.
"""

import numpy as np

from diffsplat.render.cpu_kernels.array_layout import CHUNK
from diffsplat.render.cpu_kernels.compilation_cache import inline_kernel, kernel
from diffsplat.render.cpu_kernels.simd import fetch_add, load, prefetch, store

_DIGIT_BITS = 12
_DIGITS = 1 << _DIGIT_BITS
_PASSES = 3  # enough for 32 bits
_INDEX_MASK = np.uint64(0xFFFFFFFF)
_LOOK_AHEAD = 12


@kernel
def _compact(keys, counts, boxes, tiles_x, least, histograms, tile_counts):
    """Close the gaps between the chunks' keys, and count digits and tiles on the way. Returns how many keys."""
    total = 0
    for chunk in range(counts.shape[0]):
        for i in range(chunk * CHUNK, chunk * CHUNK + counts[chunk, 0]):
            key = load(keys, i)
            store(keys, total, key)
            total += 1
            depth = np.int64(key >> np.uint64(32)) - least
            for digit in range(_PASSES):
                slot = digit * _DIGITS + ((depth >> (digit * _DIGIT_BITS)) & (_DIGITS - 1))
                store(histograms, slot, load(histograms, slot) + 1)
            box = np.int64(key & _INDEX_MASK) * 4
            for tile_row in range(load(boxes, box + 2), load(boxes, box + 3)):
                left = tile_row * tiles_x
                for tile in range(left + load(boxes, box), left + load(boxes, box + 1)):
                    store(tile_counts, tile, load(tile_counts, tile) + 1)
    return total


@inline_kernel
def _exclusive_scan(counts, first, end):
    """Replace counts by the sums of those before them."""
    position = 0
    for slot in range(first, end):
        size = load(counts, slot)
        store(counts, slot, position)
        position += size


@kernel
def _radix_sort(keys, swap, total, least, passes, histograms):
    """Stable radix sort by depth; returns the array that holds the result, ``keys`` or ``swap``."""
    for digit in range(passes):
        base = digit * _DIGITS
        _exclusive_scan(histograms, base, base + _DIGITS)
        for i in range(total):
            key = load(keys, i)
            depth = np.int64(key >> np.uint64(32)) - least
            slot = base + ((depth >> (digit * _DIGIT_BITS)) & (_DIGITS - 1))
            position = load(histograms, slot)
            store(histograms, slot, position + 1)
            store(swap, position, key)
        keys, swap = swap, keys
    return keys


@kernel
def _scatter_to_tiles(order, total, boxes, tiles_x, cursors, entries):
    """Append the splats, in order, to the lists of the tiles in their boxes."""
    for i in range(total):
        if i + _LOOK_AHEAD < total:
            prefetch(boxes, np.int64(load(order, i + _LOOK_AHEAD) & _INDEX_MASK) * 4)
        index = np.int64(load(order, i) & _INDEX_MASK)
        x0, x1 = np.int64(load(boxes, index * 4)), np.int64(load(boxes, index * 4 + 1))
        for tile_row in range(load(boxes, index * 4 + 2), load(boxes, index * 4 + 3)):
            for tile in range(tile_row * tiles_x + x0, tile_row * tiles_x + x1):
                position = load(cursors, tile)
                store(cursors, tile, position + 1)
                store(entries, position, np.int32(index))


@kernel
def _bin_view(projection, view, swap, grid, tile_starts, entries):
    """Bin one view."""
    counts, boxes = projection.counts[view], projection.boxes[view]
    least, greatest = np.int64(2**32), np.int64(0)
    for chunk in range(counts.shape[0]):
        least, greatest = min(least, counts[chunk, 2]), max(greatest, counts[chunk, 3])
    passes = 1
    while passes < _PASSES and (greatest - least) >> (passes * _DIGIT_BITS) > 0:
        passes += 1
    histograms = np.zeros(_PASSES * _DIGITS, np.int64)
    tile_starts[:] = 0
    keys = projection.keys[view]
    total = _compact(keys, counts, boxes, grid.tiles_x, least, histograms, tile_starts)
    _exclusive_scan(tile_starts, 0, tile_starts.size)
    order = _radix_sort(keys, swap, total, least, passes, histograms)
    _scatter_to_tiles(order, total, boxes, grid.tiles_x, tile_starts.copy(), entries)


@kernel
def bin_tiles(queue, grid, projection, swap, bins):
    """Bin view after view from the queue. ``swap`` has the shape of the projection's keys."""
    while True:
        view = fetch_add(queue, 1)
        if view >= projection.keys.shape[0]:
            break
        entries = bins.entries[bins.view_starts[view] : bins.view_starts[view + 1]]
        _bin_view(projection, view, swap[view], grid, bins.tile_starts[view], entries)
