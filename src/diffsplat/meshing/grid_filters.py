"""Filters of voxel and pixel grids, by SciPy."""

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import optional_package

Mask = NDArray[np.bool_]


def _ndimage() -> Any:
    """``scipy.ndimage``, whose results are not typed."""
    with optional_package("meshing", "scipy", "mesh"):
        from scipy import ndimage
    return ndimage


def opened(mask: Mask) -> Mask:
    """Those of a mask's voxels that a cube of three within it holds; what is beyond the border belongs to it."""
    ndimage, cube = _ndimage(), np.ones((3, 3, 3), np.bool_)
    return ndimage.binary_dilation(ndimage.binary_erosion(mask, cube, border_value=1), cube)


def seen_from_outside(free: Mask) -> Mask:
    """Voxels of a mask from which one of the 26 ways along axes and diagonals leads out of the grid within it.

    What leaves one side of the grid comes in at the opposite one, which makes no difference where its border is free.
    """
    seen = np.zeros_like(free)
    for direction in product((-1, 0, 1), repeat=3):
        if any(direction):
            axis = int(np.flatnonzero(direction)[0])
            layers, found = (np.moveaxis(grid, axis, 0)[:: direction[axis]] for grid in (free, seen))
            across = direction[:axis] + direction[axis + 1 :]
            way = np.ones(layers.shape[1:], np.bool_)
            for layer, target in zip(layers, found, strict=True):
                way = np.roll(way, across, (0, 1)) & layer
                np.logical_or(target, way, out=target)
    return seen


def next_to(mask: Mask) -> Mask:
    """A mask grown by one voxel along the axes."""
    return _ndimage().binary_dilation(mask)


def on_borders(mask: Mask) -> Mask:
    """Voxels with a neighbour, also across an edge or a corner, on the other side of a mask."""
    values = mask.astype(np.uint8)
    return _ndimage().maximum_filter(values, 3) != _ndimage().minimum_filter(values, 3)


def neighborhood_means(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of ``[X, Y, Z, C]`` over cubes of three voxels; zero beyond the border."""
    return _ndimage().uniform_filter(values, (3, 3, 3, 1), mode="constant")


def interpolated(values: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of a grid at ``places [..., 3]``, which are indices with fractions; beyond it, those of its border."""
    flat = places.reshape(-1, places.shape[-1]).T
    found = _ndimage().map_coordinates(values, flat, np.float64, order=1, mode="nearest")
    return found.reshape(places.shape[:-1])


def labeled_parts(mask: Mask) -> NDArray[np.int32]:
    """Numbers from 1 of the connected parts of a mask, 0 outside it."""
    return _ndimage().label(mask)[0]


def nearest_in(mask: Mask) -> tuple[NDArray[np.int32], ...]:
    """For each place of a grid the indices, axis by axis, of the nearest one in a mask."""
    return tuple(_ndimage().distance_transform_edt(~mask, return_distances=False, return_indices=True))
