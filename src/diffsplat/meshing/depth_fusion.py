"""Fusion of depth images into a signed distance field.

Each voxel averages its distance to the surfaces that the cameras see before or shortly behind it (Curless and
Levoy, "A Volumetric Method for Building Complex Models from Range Images", 1996), measured across the surface.
What no camera sees is inside, so that the surface closes.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from diffsplat.core import Cameras
from diffsplat.meshing.grid_filters import neighborhood_means, next_to, on_borders, opened, seen_from_outside

Float32 = NDArray[np.float32]

IN_FRONT, BEHIND = 2.0, 1.5
"""Voxels before and behind a surface in which its distance counts."""
_MARGIN = 4  # voxels around the box
_FREE_WEIGHT = 0.3
_LEAST_WEIGHT = 0.1
_FREE_VIEWS = 3
_JUMP = 4.0  # voxels between neighbouring pixels that are not on one surface
_CELL = (
    2.0  # voxels in an edge of the cells that tell the sides of a surface, three by three by three of them
)
_BACK_SIDE = -0.15
_BLOCK = 8  # voxels
_STRAY_SHARE = 5e-4  # of the pixels of a surface
_PIXEL_STRIDE = 4  # from one pixel that is measured to the next
_WRONG_SIDE = np.float32(-1.0)


class Lattice(NamedTuple):
    """The voxels' centres: ``low + index * step``."""

    low: NDArray[np.float64]  # [3]
    step: float
    shape: tuple[int, int, int]

    @classmethod
    def around(cls, low: NDArray[np.float64], high: NDArray[np.float64], resolution: int) -> "Lattice":
        """A lattice over a box and a margin, with ``resolution`` voxels along the box's longest side."""
        step = float((high - low).max()) / resolution
        counts = np.ceil((high - low) / step + 2 * _MARGIN).astype(int)
        middle = (low + high) / 2
        shape = (int(counts[0]) + 1, int(counts[1]) + 1, int(counts[2]) + 1)
        return cls(middle - counts / 2 * step, step, shape)


class DepthViews(NamedTuple):
    """Depth images and their cameras for the kernels."""

    depth: Float32  # [V, H, W] camera z, 0 where no surface is, negative where a back side is seen
    middle: Float32  # [V, H, W] camera z of the middle of the layer of Gaussians whose front `depth` is
    facing: Float32  # [V, H, W] distance across the surface for each unit of camera z
    world_to_camera: NDArray[np.float64]  # [V, 3, 4]
    centers: NDArray[np.float64]  # [V, 3]
    intrinsics: NDArray[np.float64]  # [V, 4] fx, fy, cx, cy, pixels

    @classmethod
    def of(cls, depth: torch.Tensor, middle: torch.Tensor, cameras: Cameras, step: float) -> "DepthViews":
        """Depths ``[V, H, W]`` of fronts and of middles, seen by ``cameras [V]``; ``step`` is the edge of a voxel."""
        views = cls(
            depth.numpy(),
            middle.numpy(),
            np.empty(tuple(depth.shape), np.float32),
            cameras.world_to_camera[:, :3].double().contiguous().numpy(),
            cameras.centers.double().contiguous().numpy(),
            cameras.pixel_intrinsics.double().contiguous().numpy(),
        )
        in_slices(_measure_facing, len(depth), views, _JUMP * step)
        return views


def fuse_depths(views: DepthViews, lattice: Lattice) -> Float32:
    """``[X, Y, Z]`` distance to the surface in voxels, positive outside, cut to ``-BEHIND`` and ``IN_FRONT``.

    First the middle voxel of every block is computed. All voxels are, where a pixel's surface point lies in the
    block or where a block beside it is on the other side; elsewhere they are like the middle. Pixels of ``views``
    that see a surface from the side that most cameras see from behind are marked on the way.
    """
    _mark_back_sides(views, lattice)
    blocks = np.zeros(tuple(-(-count // _BLOCK) for count in lattice.shape), np.float32)
    in_slices(_fuse_middles, blocks.shape[0], views, lattice.low, lattice.step, blocks)
    touched = np.zeros(blocks.shape, np.bool_)
    _touch_blocks(views, lattice.low, lattice.step, touched)
    chosen = np.argwhere(on_borders(blocks > 0) | next_to(touched))
    field = np.repeat(np.repeat(np.repeat(blocks, _BLOCK, 0), _BLOCK, 1), _BLOCK, 2)
    in_slices(_fuse_blocks, len(chosen), views, lattice.low, lattice.step, chosen, field)
    x, y, z = lattice.shape
    box = field[:x, :y, :z][(slice(_MARGIN, -_MARGIN),) * 3]
    filled = _without_tunnels(np.pad(box, _MARGIN, constant_values=IN_FRONT))
    below = (_lowest_seen(views) - lattice.low[1]) / lattice.step - np.arange(lattice.shape[1])
    return np.maximum(filled, np.clip(below, -BEHIND, IN_FRONT).astype(np.float32)[:, None])


def _lowest_seen(views: DepthViews) -> float:
    """World height below which nothing is seen from its front, but for strays.

    Cameras that look up into an object without Gaussians below see back sides alone, which leave it open how far
    down it reaches.
    """
    strides = (1, _PIXEL_STRIDE, _PIXEL_STRIDE)
    pixels = np.argwhere(views.depth[:, ::_PIXEL_STRIDE, ::_PIXEL_STRIDE] > 0) * strides
    heights = np.empty(len(pixels))
    in_slices(_measure_heights, len(pixels), views, pixels, heights)
    return float(np.quantile(heights, _STRAY_SHARE)) if len(heights) else -math.inf


def _without_tunnels(field: Float32) -> Float32:
    """Fill what cameras see through gaps between Gaussians.

    These are free voxels that no free cube of three voxels holds, and then hollows that cannot be seen from outside.
    """
    filled = np.where((field == IN_FRONT) & ~opened(field > 0), np.float32(-BEHIND), field)
    return np.where((filled > 0) & ~seen_from_outside(filled > 0), np.float32(-BEHIND), filled)


def _mark_back_sides(views: DepthViews, lattice: Lattice) -> None:
    """Cancel what is seen through a hole: the inner side of a wall whose outer side the other cameras see.

    Splats have no front. Within a few voxels of the surface point of a pixel the mean direction to all cameras that
    see it points outwards; a camera on the other side looks into a hollow that is only open because Gaussians are
    missing there.
    """
    cell = _CELL * lattice.step
    shape = tuple(int(count / _CELL) + 2 for count in lattice.shape)
    sums = np.zeros((*shape, 4), np.float32)
    _sum_directions(views, lattice.low, cell, sums)
    sums = neighborhood_means(sums)
    in_slices(_compare_directions, len(views.depth), views, lattice.low, cell, sums)


def in_slices(kernel, count, *arguments) -> None:
    """Run a kernel over ``range(count)`` on torch's number of threads."""
    threads = torch.get_num_threads()
    edges = np.linspace(0, count, 4 * threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(kernel, first, end, *arguments) for first, end in pairwise(edges)]:
            done.result()


@njit(cache=True, nogil=True)
def _point(views, v, row, column):
    """World point in the middle of the layer that a pixel's centre sees, and the direction to the camera."""
    fx, fy, cx, cy = views.intrinsics[v]
    z = views.middle[v, row, column]
    x, y = (column + 0.5 - cx) / fx * z, (row + 0.5 - cy) / fy * z
    matrix = views.world_to_camera[v]
    length = math.sqrt(x * x + y * y + z * z)
    center = views.centers[v]
    point = (
        center[0] + matrix[0, 0] * x + matrix[1, 0] * y + matrix[2, 0] * z,
        center[1] + matrix[0, 1] * x + matrix[1, 1] * y + matrix[2, 1] * z,
        center[2] + matrix[0, 2] * x + matrix[1, 2] * y + matrix[2, 2] * z,
    )
    toward = (
        (center[0] - point[0]) / length,
        (center[1] - point[1]) / length,
        (center[2] - point[2]) / length,
    )
    return point, toward


@njit(cache=True, nogil=True)
def _measure_heights(first, end, views, pixels, heights):
    """Fill in the world heights of what ``pixels [N, 3]`` (view, row, column) of a range see."""
    for n in range(first, end):
        point, _ = _point(views, pixels[n, 0], pixels[n, 1], pixels[n, 2])
        heights[n] = point[1]


@njit(cache=True, nogil=True)
def _slope(depths, here, before, after, jump):
    """Change of depth from one pixel to the next; taken on the side without a jump, 1e9 where both have one."""
    total, count = 0.0, 0
    if depths[before] > 0 and abs(depths[before] - depths[here]) < jump:
        total, count = total + depths[here] - depths[before], count + 1
    if depths[after] > 0 and abs(depths[after] - depths[here]) < jump:
        total, count = total + depths[after] - depths[here], count + 1
    return total / count if count > 0 else 1e9


@njit(cache=True, nogil=True)
def _measure_facing(first, end, views, jump):
    """Fill in how far one unit of camera z is across the surface."""
    height, width = views.depth.shape[1:]
    for v in range(first, end):
        fx, fy, cx, cy = views.intrinsics[v]
        for row in range(height):
            for column in range(width):
                z = views.depth[v, row, column]
                views.facing[v, row, column] = 0
                if z <= 0 or row == 0 or column == 0 or row == height - 1 or column == width - 1:
                    continue
                zx = _slope(views.depth[v, row], column, column - 1, column + 1, jump)
                zy = _slope(views.depth[v, :, column], row, row - 1, row + 1, jump)
                if zx > 1e8 or zy > 1e8:
                    continue
                # Normal of the surface z(x, y) through the neighbours' points, times fx fy / z^2 ... up to length.
                x, y = (column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy
                nx, ny = zx * fx, zy * fy
                nz = -(z + x * nx + y * ny)
                views.facing[v, row, column] = z / math.sqrt(nx * nx + ny * ny + nz * nz)


@njit(cache=True, nogil=True)
def _sum_directions(views, low, cell, sums):
    """Add up the directions to the cameras of all surface points in each cell."""
    for v in range(views.depth.shape[0]):
        for row in range(views.depth.shape[1]):
            for column in range(views.depth.shape[2]):
                if views.depth[v, row, column] > 0:
                    point, toward = _point(views, v, row, column)
                    i, j, k, inside = _cell_of(point, low, cell, sums)
                    if inside:
                        sums[i, j, k, 0] += toward[0]
                        sums[i, j, k, 1] += toward[1]
                        sums[i, j, k, 2] += toward[2]
                        sums[i, j, k, 3] += 1


@njit(cache=True, nogil=True)
def _compare_directions(first, end, views, low, cell, sums):
    """Mark the pixels whose camera is on the other side than most that see the same cell."""
    for v in range(first, end):
        for row in range(views.depth.shape[1]):
            for column in range(views.depth.shape[2]):
                if views.depth[v, row, column] > 0:
                    point, toward = _point(views, v, row, column)
                    i, j, k, inside = _cell_of(point, low, cell, sums)
                    if inside:
                        mean = sums[i, j, k]
                        along = mean[0] * toward[0] + mean[1] * toward[1] + mean[2] * toward[2]
                        if along < _BACK_SIDE * mean[3]:
                            views.depth[v, row, column] = _WRONG_SIDE


@njit(cache=True, nogil=True)
def _cell_of(point, low, cell, sums):
    i, j, k = (
        int((point[0] - low[0]) / cell),
        int((point[1] - low[1]) / cell),
        int((point[2] - low[2]) / cell),
    )
    inside = (
        0 <= i < sums.shape[0] and 0 <= j < sums.shape[1] and 0 <= k < sums.shape[2] and point[0] >= low[0]
    )
    return i, j, k, inside and point[1] >= low[1] and point[2] >= low[2]


@njit(cache=True, nogil=True)
def _depth_at(depth, x, y, jump):
    """Depth between the four pixels around a place in pixels, or of the nearest one beside a jump."""
    column, row = int(x - 0.5), int(y - 0.5)
    a, b = depth[row, column], depth[row, column + 1]
    c, d = depth[row + 1, column], depth[row + 1, column + 1]
    right, down = x - 0.5 - column, y - 0.5 - row
    least, most = min(a, b, c, d), max(a, b, c, d)
    if least > 0 and most - least < jump:
        return (a * (1 - right) + b * right) * (1 - down) + (c * (1 - right) + d * right) * down
    return depth[int(y), int(x)]


@njit(cache=True, nogil=True)
def _add_view(views, v, start, direction, step, row):
    """Add one view to a row of voxels: sums of weighted distances, weights, weights near it, and views that see it
    free, less those that see the back side of something beyond it.

    ``start`` and ``direction`` are the first voxel and the step from one to the next in the camera.
    """
    fx, fy, cx, cy = views.intrinsics[v]
    depth, facing = views.depth[v], views.facing[v]
    height, width = depth.shape
    for k in range(row.shape[1]):
        z = start[2] + k * direction[2]
        x = fx * (start[0] + k * direction[0]) / z + cx
        y = fy * (start[1] + k * direction[1]) / z + cy
        if x < 1 or y < 1 or x >= width - 1 or y >= height - 1:
            continue
        surface = _depth_at(depth, x, y, _JUMP * step)
        if surface < 0:
            row[3, k] -= 1
            continue
        distance, weight = 1e9, 0.0
        if surface > 0:
            across = facing[int(y), int(x)]
            distance = (surface - z) * across / step
            tan_x, tan_y = (x - cx) / fx, (y - cy) / fy
            weight = across * across / (1 + tan_x * tan_x + tan_y * tan_y)
        if distance >= IN_FRONT:
            row[0, k] += _FREE_WEIGHT * IN_FRONT
            row[1, k] += _FREE_WEIGHT
            row[3, k] += 1
        elif distance > -BEHIND:
            if distance < 0:
                weight *= 1 + distance / BEHIND  # so that the two sides of a thin sheet do not thicken it
            row[0, k] += weight * distance
            row[1, k] += weight
            row[2, k] += weight


@njit(cache=True, nogil=True)
def _fuse_row(views, low, step, index, row, values):
    """Distances of the voxels that follow ``index`` along the last axis; ``row`` is scratch for their sums."""
    start, direction = np.empty(3), np.empty(3)
    row[:] = 0
    for v in range(views.depth.shape[0]):
        matrix = views.world_to_camera[v]
        for r in range(3):
            start[r] = matrix[r, 3]
            for k in range(3):
                start[r] += matrix[r, k] * (low[k] + index[k] * step)
            direction[r] = matrix[r, 2] * step
        _add_view(views, v, start, direction, step, row)
    for k in range(values.size):
        if row[2, k] > _LEAST_WEIGHT:
            values[k] = row[0, k] / row[1, k]
        else:
            values[k] = IN_FRONT if row[3, k] >= _FREE_VIEWS else -BEHIND


@njit(cache=True, nogil=True)
def _fuse_middles(first, end, views, low, step, blocks):
    """Fuse the middle voxel of each block whose first index is in a range."""
    row = np.empty((4, 1), np.float32)
    half = _BLOCK // 2
    for i in range(first, end):
        for j in range(blocks.shape[1]):
            for k in range(blocks.shape[2]):
                index = (i * _BLOCK + half, j * _BLOCK + half, k * _BLOCK + half)
                _fuse_row(views, low, step, index, row, blocks[i, j, k : k + 1])


@njit(cache=True, nogil=True)
def _fuse_blocks(first, end, views, low, step, chosen, field):
    """Fuse all voxels of the chosen blocks of a range."""
    row = np.empty((4, _BLOCK), np.float32)
    for n in range(first, end):
        x, y, z = chosen[n, 0] * _BLOCK, chosen[n, 1] * _BLOCK, chosen[n, 2] * _BLOCK
        for i in range(x, x + _BLOCK):
            for j in range(y, y + _BLOCK):
                _fuse_row(views, low, step, (i, j, z), row, field[i, j, z : z + _BLOCK])


@njit(cache=True, nogil=True)
def _touch_blocks(views, low, step, touched):
    """Note the blocks in which surface points of pixels lie."""
    for v in range(views.depth.shape[0]):
        for row in range(views.depth.shape[1]):
            for column in range(views.depth.shape[2]):
                if views.depth[v, row, column] > 0:
                    point, _ = _point(views, v, row, column)
                    i, j, k, inside = _cell_of(point, low, _BLOCK * step, touched)
                    if inside:
                        touched[i, j, k] = True
