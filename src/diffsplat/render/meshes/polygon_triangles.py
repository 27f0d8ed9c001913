"""Triangles of polygons, strips and fans, as vertex numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from diffsplat.render.meshes.triangle_mesh import LossList

IntArray = NDArray[np.int64]
_MAX_CONCAVE = 256
"""Corners up to which a concave polygon is cut up properly, in time that grows with their cube."""


def within(triangles: IntArray, vertices: int, losses: LossList) -> NDArray[np.bool_]:
    """``[F]`` which triangles refer to vertices that are there; how many do not is noted."""
    inside: NDArray[np.bool_] = np.all((triangles >= 0) & (triangles < vertices), axis=1)
    if not inside.all():
        losses.part(f"{(~inside).sum()} of its triangles refer to vertices that it lacks")
    return inside


def polygon_triangles(sizes: NDArray[np.integer], points: NDArray[np.floating]) -> tuple[IntArray, IntArray]:
    """Triangles of polygons whose corners stand one after another; fans, and cut ears where one is concave.

    Args:
        sizes: ``[P]`` corners of each polygon.
        points: ``[C, 3]`` their places.

    Returns:
        ``[F, 3]`` numbers of corners in the list, and ``[F]`` the polygon of each triangle.
    """
    counts = np.maximum(sizes.astype(np.int64) - 2, 0)
    polygon = np.repeat(np.arange(len(sizes)), counts)
    starts = np.cumsum(sizes) - sizes
    first = starts[polygon]
    step = np.arange(len(polygon)) - np.repeat(np.cumsum(counts) - counts, counts)
    triangles = np.stack([first, first + step + 1, first + step + 2], axis=1)
    a, b, c = (points[triangles[:, i]] for i in range(3))
    areas = np.cross(b - a, c - a)
    normals = np.stack([np.bincount(polygon, areas[:, i], len(sizes)) for i in range(3)], axis=1)
    turned = (areas * normals[polygon]).sum(axis=1) < 0
    for index in np.unique(polygon[turned]):
        if sizes[index] <= _MAX_CONCAVE:
            ring = slice(starts[index], starts[index] + sizes[index])
            triangles[polygon == index] = starts[index] + _cut_ears(
                points[ring], normals[index].astype(np.float64)
            )
    return triangles, polygon


def _cut_ears(points: NDArray[np.floating], normal: NDArray[np.floating]) -> IntArray:
    """``[N - 2, 3]`` triangles of a flat polygon ``[N, 3]`` without crossings (Meisters, 1975)."""
    axis = int(np.abs(normal).argmax())
    flat = np.delete(points, axis, axis=1) * (1 if (normal[axis] > 0) == (axis != 1) else [-1, 1])
    ring = list(range(len(points)))
    triangles = []
    while len(ring) > 3:
        ear = next((i for i in range(len(ring)) if _is_ear(flat, ring, i)), 0)
        triangles.append([ring[ear - 1], ring[ear], ring[(ear + 1) % len(ring)]])
        del ring[ear]
    return np.array([*triangles, ring], dtype=np.int64)


def _is_ear(flat: NDArray[np.floating], ring: list[int], place: int) -> bool:
    """Whether the corner is convex and its triangle holds no other corner."""
    a, b, c = flat[ring[place - 1]], flat[ring[place]], flat[ring[(place + 1) % len(ring)]]
    edges = ((a, b), (b, c), (c, a))
    if _cross(b - a, c - a) <= 0:
        return False
    others = flat[[i for i in ring if not any((flat[i] == corner).all() for corner in (a, b, c))]]
    return not np.all([_cross(end - start, others - start) >= 0 for start, end in edges], axis=0).any()


def _cross(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def strip_triangles(indices: NDArray[np.integer], restart: int) -> IntArray:
    """``[F, 3]`` triangles of strips ``[N]``, which the value ``restart`` parts; all face the same way."""
    return _in_runs(indices, restart, _strip)


def fan_triangles(indices: NDArray[np.integer], restart: int) -> IntArray:
    """``[F, 3]`` triangles of fans ``[N]``, which the value ``restart`` parts."""
    return _in_runs(indices, restart, _fan)


def _in_runs(indices: NDArray[np.integer], restart: int, shape: Callable[[IntArray], IntArray]) -> IntArray:
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
