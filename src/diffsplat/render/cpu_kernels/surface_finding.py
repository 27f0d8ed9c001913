"""Depth of the first opaque surface of every pixel.

The blended depth of :mod:`~diffsplat.render.cpu_kernels.blending` is a mean over all that a ray meets, and the few
percent that come from behind the surface move it by more than a voxel. Here a pixel ends shortly behind the
splat at which half of its light is gone. Each splat counts with the depth of its densest point on the ray, not
with that of its centre: to first order, the conditional mean of z given the image position (Zwicker et al., "EWA
Splatting", 2002; the same plane as in Zhang et al., "RaDe-GS", 2024). From there it can be lifted towards the camera
by a multiple of the conditional standard deviation, because a ray beside the centre of an opaque Gaussian is stopped
as far out as one that meets it head on (the level set of Yu et al., "Gaussian Opacity Fields", 2024).
"""

import math
from typing import NamedTuple

import numpy as np

from diffsplat.render.cpu_kernels.array_layout import (
    ALPHA_LIMIT,
    BLOCKS,
    CHUNK,
    DEPTH_FEATURE,
    HALF,
    HEAD,
    LOG2_ALPHA_MIN,
    LOG_OPACITY,
    ONE,
    ZERO,
    Float32,
    pixel_x,
    pixel_y,
)
from diffsplat.render.cpu_kernels.blending import (
    BATCH,
    BlockLists,
    alpha_of,
    block_left,
    block_top,
    falloff,
    list_blocks,
    record_of,
    store_block,
    tile_of,
    whitening_of,
)
from diffsplat.render.cpu_kernels.compilation_cache import inline_kernel, kernel
from diffsplat.render.cpu_kernels.simd import (
    LANES,
    any_lane,
    broadcast,
    fetch_add,
    load,
    load_lanes,
    minimum,
    multiply_add,
    select,
    store_lanes,
)

# Scratch of a block, in vectors: transmittance, sum of weights, sum of weighted depths, depth at which it ends.
_TRANSMITTANCE, _WEIGHT, _DEPTH, _LIMIT, _ROWS = 0, 1, 2, 3, 4
_NO_LIMIT = np.float32(1e30)


class Surfaces(NamedTuple):
    """What is found, and what is needed for it."""

    planes: (
        Float32  # [V, M, 3] of a splat's densest point: change of z by pixel along x and y, deviation of z
    )
    lift: np.float32  # deviations by which that point moves towards the camera
    band: np.float32  # how far behind the middle of a surface its splats may lie, world units
    depth: Float32  # [V, H, W] camera z, 0 where no surface is


@inline_kernel
def _camera_axes(view, quat, scales):
    """The columns of ``W M``: the axes of a Gaussian in the camera, as nine numbers by rows."""
    w, x, y, z = np.float64(quat[0]), np.float64(quat[1]), np.float64(quat[2]), np.float64(quat[3])
    norm = 1.0 / math.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w * norm, x * norm, y * norm, z * norm
    columns = (
        (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)),
        (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)),
        (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)),
    )
    turned = np.empty((3, 3))
    for k in range(3):
        for r in range(3):
            along = (
                view[3 * r] * columns[k][0]
                + view[3 * r + 1] * columns[k][1]
                + view[3 * r + 2] * columns[k][2]
            )
            turned[r, k] = along * scales[k]
    return turned


@kernel
def find_planes(queue, scene, planes):
    """Write the planes of every Gaussian in every view, chunk by chunk of the queue."""
    gaussians, count = scene.gaussians, scene.candidates.size
    while True:
        chunk = fetch_add(queue, 1)
        if chunk * CHUNK >= count:
            break
        for v in range(scene.views.shape[0]):
            view = scene.views[v]
            for index in range(chunk * CHUNK, min(count, (chunk + 1) * CHUNK)):
                g = scene.candidates[index]
                mean = gaussians.means[g]
                camera = np.empty(3)
                for r in range(3):
                    camera[r] = view[9 + r]
                    for k in range(3):
                        camera[r] += np.float64(view[3 * r + k]) * mean[k]
                axes = _camera_axes(view, gaussians.quats[g], gaussians.scales[g])
                focal_x, focal_y = view[12] / camera[2], view[13] / camera[2]
                tan_x, tan_y = camera[0] / camera[2], camera[1] / camera[2]
                xx = xy = yy = xz = yz = zz = 0.0
                for k in range(3):
                    x = focal_x * (axes[0, k] - tan_x * axes[2, k])
                    y = focal_y * (axes[1, k] - tan_y * axes[2, k])
                    z = axes[2, k]
                    xx, xy, yy, xz, yz = xx + x * x, xy + x * y, yy + y * y, xz + x * z, yz + y * z
                    zz += z * z
                area = xx * yy - xy * xy
                flat = area <= 1e-12 * xx * yy
                planes[v, index, 0] = 0.0 if flat else (yy * xz - xy * yz) / area
                planes[v, index, 1] = 0.0 if flat else (xx * yz - xy * xz) / area
                rest = zz - planes[v, index, 0] * xz - planes[v, index, 1] * yz
                planes[v, index, 2] = math.sqrt(max(rest, 0.0))


@kernel
def _search_block(tile, surfaces, planes, start, block, lists, scratch):
    """Add a batch's list to one block. Returns whether some pixel of the block has not ended."""
    records = tile.records
    base = block * _ROWS * LANES
    transmittance = load_lanes(scratch, base + _TRANSMITTANCE * LANES)
    weight_sum = load_lanes(scratch, base + _WEIGHT * LANES)
    depth_sum = load_lanes(scratch, base + _DEPTH * LANES)
    limit = load_lanes(scratch, base + _LIMIT * LANES)
    x = pixel_x() + np.float32(tile.x + block_left(block))
    y = pixel_y() + np.float32(tile.y + block_top(block))
    alive = True
    for item in range(load(lists.lengths, block)):
        entry = start + np.int64(load(lists.items, block * BATCH + item))
        record = record_of(tile, entry)
        center = load(records, record + HEAD + DEPTH_FEATURE)
        if not any_lane(limit > center):
            alive = False
            break
        plane = np.int64(load(tile.entries, entry)) * 3
        dx, dy = x - load(records, record), y - load(records, record + 1)
        log2_alpha = load(records, record + LOG_OPACITY) - falloff(whitening_of(records, record), dx, dy)
        lifted = broadcast(center - surfaces.lift * load(planes, plane + 2))
        depth = multiply_add(load(planes, plane), dx, multiply_add(load(planes, plane + 1), dy, lifted))
        counted = (log2_alpha >= LOG2_ALPHA_MIN) & (limit > depth)
        alpha = minimum(alpha_of(log2_alpha), ALPHA_LIMIT)
        weight = select(counted, alpha * transmittance, ZERO)
        transmittance = transmittance - weight
        weight_sum = weight_sum + weight
        depth_sum = multiply_add(weight, depth, depth_sum)
        crossing = counted & (transmittance < HALF) & (limit >= _NO_LIMIT)
        limit = select(crossing, depth + surfaces.band, limit)
    store_lanes(scratch, base + _TRANSMITTANCE * LANES, transmittance)
    store_lanes(scratch, base + _WEIGHT * LANES, weight_sum)
    store_lanes(scratch, base + _DEPTH * LANES, depth_sum)
    store_lanes(scratch, base + _LIMIT * LANES, limit)
    return alive


@kernel
def _search_tile(tile, surfaces, planes, lists, scratch):
    """Walk the entries of a tile until every block has ended."""
    for block in range(BLOCKS):
        base = block * _ROWS * LANES
        store_lanes(scratch, base + _TRANSMITTANCE * LANES, broadcast(ONE))
        store_lanes(scratch, base + _WEIGHT * LANES, broadcast(ZERO))
        store_lanes(scratch, base + _DEPTH * LANES, broadcast(ZERO))
        store_lanes(scratch, base + _LIMIT * LANES, broadcast(_NO_LIMIT))
    alive = np.int64((1 << BLOCKS) - 1)
    start = tile.first
    while start < tile.end and alive != 0:
        end = min(tile.end, start + BATCH)
        list_blocks(tile, start, end, alive, lists)
        for block in range(BLOCKS):
            if load(lists.lengths, block) > 0 and not _search_block(
                tile, surfaces, planes, start, block, lists, scratch
            ):
                alive &= ~(1 << block)
        start = end


@kernel
def find_surfaces(queue, scene, state, surfaces):
    """Write the depth of tile after tile from the queue; ``state`` has the projection and the bins."""
    scratch = np.empty(BLOCKS * _ROWS * LANES, np.float32)
    lists = BlockLists(np.empty(BLOCKS * BATCH, np.int16), np.empty(BLOCKS, np.int64))
    tiles = scene.grid.tiles_x * scene.grid.tiles_y
    while True:
        task = fetch_add(queue, 1)
        if task >= scene.views.shape[0] * tiles:
            break
        view = task // tiles
        tile = tile_of(scene, state, view, task % tiles)
        _search_tile(tile, surfaces, surfaces.planes[view], lists, scratch)
        for block in range(BLOCKS):
            x, y = tile.x + block_left(block), tile.y + block_top(block)
            if x >= scene.grid.width or y >= scene.grid.height:
                continue
            base = block * _ROWS * LANES
            depth = load_lanes(scratch, base + _DEPTH * LANES) / load_lanes(scratch, base + _WEIGHT * LANES)
            opaque = load_lanes(scratch, base + _TRANSMITTANCE * LANES) < HALF
            store_block(surfaces.depth[view], x, y, select(opaque, depth, ZERO))
