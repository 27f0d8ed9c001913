"""Triangles of polygons, strips and fans, as vertex numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffsplat.render.meshes.triangle_mesh import LossList

IntArray = NDArray[np.int64]
_MAX_CONCAVE = 2048
"""Corners up to which a concave polygon is cut up properly, in time that grows with their square or more."""


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
            flat = _flattened(points[ring], normals[index].astype(np.float64))
            triangles[polygon == index] = starts[index] + _cut_ears(flat)
    return triangles, polygon


def _flattened(points: NDArray[np.floating], normal: NDArray[np.floating]) -> NDArray[np.float64]:
    """``[N, 2]`` of a flat polygon ``[N, 3]`` seen from where its normal points, counter-clockwise."""
    axis = int(np.abs(normal).argmax())
    sign = 1 if (normal[axis] > 0) == (axis != 1) else -1
    return np.delete(points, axis, axis=1).astype(np.float64) * [1, sign]


@njit(cache=True)
def _cut_ears(flat):
    """``[N - 2, 3]`` triangles of a polygon ``[N, 2]`` without crossings (Meisters, 1975)."""
    ring = np.arange(len(flat))
    triangles = np.empty((len(flat) - 2, 3), np.int64)
    for cut in range(len(triangles)):
        count = len(flat) - cut
        ear = 0
        for place in range(count):
            if _is_ear(flat, ring[:count], place):
                ear = place
                break
        triangles[cut] = ring[(ear - 1) % count], ring[ear], ring[(ear + 1) % count]
        ring[ear : count - 1] = ring[ear + 1 : count].copy()
    return triangles


@njit(cache=True)
def _is_ear(flat, ring, place):
    """Whether the corner is convex and its triangle holds no other corner."""
    a, b, c = ring[place - 1], ring[place], ring[(place + 1) % len(ring)]
    if _turn(flat, a, b, c) <= 0:
        return False
    for p in ring:
        if _turn(flat, a, b, p) < 0 or _turn(flat, b, c, p) < 0 or _turn(flat, c, a, p) < 0:
            continue
        if not (_same(flat, p, a) or _same(flat, p, b) or _same(flat, p, c)):
            return False
    return True


@njit(cache=True)
def _turn(flat, a, b, c):
    """Positive where the way from ``a`` by ``b`` to ``c`` turns left."""
    ab0, ab1 = flat[b, 0] - flat[a, 0], flat[b, 1] - flat[a, 1]
    ac0, ac1 = flat[c, 0] - flat[a, 0], flat[c, 1] - flat[a, 1]
    return ab0 * ac1 - ab1 * ac0


@njit(cache=True)
def _same(flat, a, b):
    return flat[a, 0] == flat[b, 0] and flat[a, 1] == flat[b, 1]


def strip_triangles(indices: NDArray[np.integer], restart: int) -> IntArray:
    """``[F, 3]`` triangles of strips ``[N]``, which the value ``restart`` separates; all face the same way."""
    return _in_runs(indices, restart, _strip)


def fan_triangles(indices: NDArray[np.integer], restart: int) -> IntArray:
    """``[F, 3]`` triangles of fans ``[N]``, which the value ``restart`` separates."""
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
