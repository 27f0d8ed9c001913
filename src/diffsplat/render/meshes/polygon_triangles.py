"""Triangles of polygons, strips and fans, as vertex numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffsplat.render.meshes.triangle_mesh import LossList

IntArray = NDArray[np.int64]


def within(triangles: IntArray, vertices: int, losses: LossList) -> NDArray[np.bool_]:
    """``[F]`` which triangles refer to vertices that are there; how many do not is noted."""
    inside: NDArray[np.bool_] = np.all((triangles >= 0) & (triangles < vertices), axis=1)
    if not inside.all():
        losses.part(f"{(~inside).sum()} of its triangles refer to vertices that it lacks")
    return inside


def polygon_fans(sizes: NDArray[np.integer]) -> tuple[IntArray, IntArray]:
    """Triangles of polygons whose corners stand one after another.

    Args:
        sizes: ``[P]`` corners of each polygon.

    Returns:
        ``[F, 3]`` numbers of corners in the list, and ``[F]`` the polygon of each triangle.
    """
    counts = np.maximum(sizes.astype(np.int64) - 2, 0)
    polygon = np.repeat(np.arange(len(sizes)), counts)
    first = (np.cumsum(sizes) - sizes)[polygon]
    step = np.arange(len(polygon)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([first, first + step + 1, first + step + 2], axis=1), polygon


def strip_triangles(indices: NDArray[np.integer], restart: int) -> IntArray:
    """``[F, 3]`` triangles of strips ``[N]``, which the value ``restart`` parts; all face the same way."""
    return _in_runs(indices, restart, _strip)


def fan_triangles(indices: NDArray[np.integer], restart: int) -> IntArray:
    """``[F, 3]`` triangles of fans ``[N]``, which the value ``restart`` parts."""
    return _in_runs(indices, restart, _fan)


def _in_runs(indices: NDArray[np.integer], restart: int, shape) -> IntArray:
    indices = indices.astype(np.int64)
    runs = np.split(indices, np.flatnonzero(indices == restart))
    return np.concatenate([shape(run[run != restart]) for run in runs])


def _strip(run: IntArray) -> IntArray:
    if len(run) < 3:
        return np.zeros((0, 3), dtype=np.int64)
    triangles = np.stack([run[:-2], run[1:-1], run[2:]], axis=1)
    triangles[1::2] = triangles[1::2, [1, 0, 2]]
    return triangles


def _fan(run: IntArray) -> IntArray:
    if len(run) < 3:
        return np.zeros((0, 3), dtype=np.int64)
    return np.stack([np.full(len(run) - 2, run[0]), run[1:-1], run[2:]], axis=1)
