"""Repair of edges that more than two triangles share.

Edge collapses can press two sheets of a surface together. Here the sheets are cut apart along such edges and get
vertices of their own (Gueziec et al., "Cutting and Stitching", 2001). Vertices at one place move a little apart, so
that programs which join those do not undo it.
"""

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import optional_package

_GAP = 1e-3
"""How far a vertex that shares its place moves: a share of the way to the middle of its triangles."""


def split_edges(
    positions: NDArray[np.floating], faces: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices ``[N, 3]`` and triangles ``[F, 3]`` of which every edge has exactly two triangles.

    Args:
        positions: ``[M, 3]``.
        faces: ``[G, 3]``, in which every edge has as many triangles in one direction as in the other.
    """
    faces = _without_flaps(faces.astype(np.int64))
    count, fans = _fans(positions, faces)
    sources = np.zeros(count, np.int64)
    sources[fans] = faces.ravel()
    moved = positions[sources].astype(np.float64)
    middles = np.repeat(positions[faces].mean(axis=1), 3, axis=0)
    sums = np.zeros_like(moved)
    np.add.at(sums, fans, middles)
    means = sums / np.bincount(fans, minlength=count)[:, None]
    _, places, counts = np.unique(moved.astype(np.float32), axis=0, return_inverse=True, return_counts=True)
    coincident = (counts > 1)[places.ravel()]
    moved[coincident] += _GAP * (means - moved)[coincident]
    return _divide_double_edges(moved, fans.reshape(-1, 3).astype(np.int64))


def _divide_double_edges(
    positions: NDArray[np.float64], faces: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Give all but one of the edges between the same two vertices a vertex in the middle."""
    one, two = _paired_half_edges(positions, faces)
    start, end = faces.ravel()[one], np.roll(faces, -1, axis=1).ravel()[one]
    keys = np.minimum(start, end) * len(positions) + np.maximum(start, end)
    _, first = np.unique(keys, return_index=True)
    doubled = np.setdiff1d(np.arange(len(one)), first)
    if not len(doubled):
        return positions, faces
    divided = np.full(faces.size, -1)
    divided[one[doubled]] = divided[two[doubled]] = len(positions) + np.arange(len(doubled))
    sheet = (
        positions[faces[one[doubled] // 3]].mean(axis=1) + positions[faces[two[doubled] // 3]].mean(axis=1)
    ) / 2
    middle = (positions[start[doubled]] + positions[end[doubled]]) / 2
    kept: list[tuple[int, int, int]] = []
    divided = divided.reshape(-1, 3)
    touched = (divided >= 0).any(axis=1)
    for corners, middles in zip(faces[touched].tolist(), divided[touched].tolist(), strict=True):
        kept.extend(_fan(corners, middles))
    return (
        np.concatenate([positions, middle + _GAP * (sheet - middle)]),
        np.concatenate([faces[~touched], np.array(kept, np.int64)]),
    )


def _fan(corners: list[int], middles: list[int]) -> list[tuple[int, int, int]]:
    """A triangle with a vertex in the middle of some sides (-1: none of that side), cut into triangles."""
    around = [vertex for pair in zip(corners, middles, strict=True) for vertex in pair if vertex >= 0]
    # From the middle of a side no triangle of the fan lies on one line.
    first = next(i for i, vertex in enumerate(around) if vertex in middles)
    around = around[first:] + around[:first]
    return [(around[0], around[i], around[i + 1]) for i in range(1, len(around) - 1)]


def _without_flaps(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leave out triangles without area by their corners, and pairs that lie back to back."""
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    _, same, counts = np.unique(np.sort(faces, axis=1), axis=0, return_inverse=True, return_counts=True)
    turned, keep = _parity(faces), (counts == 1)[same]
    for stack in np.flatnonzero(counts > 1):
        members = np.flatnonzero(same == stack)
        balance = int(turned[members].sum())
        keep[members[turned[members] == np.sign(balance)][: abs(balance)]] = True
    return faces[keep]


def _parity(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """1 for triangles whose corners are an even permutation of their sorted ones, -1 for the others."""
    a, b, c = faces.T
    return np.where(((a < b).astype(int) + (b < c) + (c < a)) == 2, 1, -1)


def _fans(positions: NDArray[np.floating], faces: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """Number of fans, and the fan ``[3 F]`` of every corner: those of triangles that meet there on one sheet."""
    with optional_package("meshing", "scipy", "mesh"):
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components
    ends = np.roll(np.arange(faces.size).reshape(-1, 3), -1, axis=1).ravel()
    one, two = _paired_half_edges(positions, faces)
    rows, columns = np.concatenate([one, ends[one]]), np.concatenate([ends[two], two])
    joined = coo_array((np.ones(len(rows), np.bool_), (rows, columns)), shape=(faces.size, faces.size))
    return connected_components(joined, directed=False)


def _paired_half_edges(
    positions: NDArray[np.floating], faces: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Half-edges (``3 * triangle + side``) that are the two sides of one edge of the surface."""
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    keys = np.minimum(start, end) * len(positions) + np.maximum(start, end)
    order = np.argsort(keys, kind="stable")
    _, first, counts = np.unique(keys[order], return_index=True, return_counts=True)
    simple = first[counts == 2]
    pairs = [np.stack([order[simple], order[simple + 1]], axis=1)]
    for at, count in zip(first[counts > 2], counts[counts > 2], strict=True):
        pairs.append(_sheets(order[at : at + count], positions, faces))
    one, two = np.concatenate(pairs).T
    return one, two


def _sheets(
    edges: NDArray[np.int64], positions: NDArray[np.floating], faces: NDArray[np.int64]
) -> NDArray[np.int64]:
    """``[P, 2]`` of the half-edges that lie on one edge: neighbours around it that run in opposite directions."""
    triangle, side = edges // 3, edges % 3
    start, end = faces[triangle, side], faces[triangle, (side + 1) % 3]
    origin = positions[min(start[0], end[0])].astype(np.float64)
    axis = positions[max(start[0], end[0])] - origin
    across = positions[faces[triangle, (side + 2) % 3]] - origin
    across -= np.outer(across @ axis / max(axis @ axis, 1e-30), axis)
    zero = across[0]
    angles = np.arctan2(np.cross(zero, across) @ axis / max(np.linalg.norm(axis), 1e-30), across @ zero)
    left = [int(k) for k in np.argsort(angles, kind="stable")]
    pairs: list[tuple[int, int]] = []
    while left:
        i = next((i for i in range(len(left)) if start[left[i]] != start[left[i - 1]]), None)
        if i is None:
            break
        pairs.append((int(edges[left[i - 1]]), int(edges[left[i]])))
        left = [k for k in left if k not in (left[i - 1], left[i])]
    return np.array(pairs, np.int64).reshape(-1, 2)
