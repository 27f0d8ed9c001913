"""A distance field's surface as a closed triangle mesh with few faces."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import InvalidInputError, optional_package
from diffsplat.meshing.grid_filters import interpolated, labeled_parts
from diffsplat.meshing.manifold_repair import split_edges

_LEAST_SHARE = 0.005
"""Volume of a separate part, as a share of the whole, below which it is left out."""
_SAMPLES = np.array(
    [(4, 4, 4), (6, 6, 0), (0, 6, 6), (6, 0, 6), (8, 2, 2), (2, 8, 2), (2, 2, 8)], dtype=np.float64
) / 12  # fmt: skip
"""Barycentric coordinates of the places in a face that are compared with the field."""
_FITTING_ROUNDS = 5


@dataclass(frozen=True)
class Surface:
    """A closed triangle mesh.

    Args:
        positions: ``[N, 3]`` float64.
        normals: ``[N, 3]`` unit vectors, outwards.
        faces: ``[F, 3]`` int32 corners, anticlockwise from outside.
    """

    positions: NDArray[np.float64]
    normals: NDArray[np.float64]
    faces: NDArray[np.int32]

    @classmethod
    def of(cls, positions: NDArray[Any], faces: NDArray[Any]) -> "Surface":
        """A mesh whose normals are the means of its faces', weighted by area."""
        positions, faces = positions.astype(np.float64), faces.astype(np.int32)
        corners = positions[faces]
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        sums = np.stack(
            [_vertex_sums(faces, across[:, [axis] * 3], len(positions)) for axis in range(3)], axis=1
        )
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        normals = np.where(length > 0, sums / np.where(length > 0, length, 1), [0.0, 1.0, 0.0])
        return cls(positions, normals, faces)


_PACKAGES = ("scipy", "skimage", "fast_simplification", "xatlas", "trimesh")


def has_meshing() -> bool:
    """Whether the packages that meshes need are installed."""
    return all(find_spec(name) is not None for name in _PACKAGES)


def require_meshing() -> None:
    """Refuse to begin without the packages that meshes need.

    Raises:
        ImportError: names the extra.
    """
    with optional_package("meshing", "scikit-image, fast-simplification, xatlas and trimesh", "mesh"):
        for name in _PACKAGES:
            import_module(name)


def extract_surface(field: NDArray[np.float32], faces: int) -> Surface:
    """The surface between the positive outside and the negative inside, in voxels.

    Parts that are small, and hollows that are closed off, are left out. The result has at most ``faces`` triangles
    where the shape allows it (quadric error metrics, Garland and Heckbert 1997).

    Args:
        field: ``[X, Y, Z]`` distances; what is beyond its border is outside.
        faces: number of triangles.

    Raises:
        ValueError: when nothing is inside.
    """
    require_meshing()
    import fast_simplification
    from skimage.measure import marching_cubes

    solid = _without_strays(np.pad(field, 1, constant_values=1.0))
    found: Any = marching_cubes(solid, 0.0)
    positions, triangles = found[0], found[1]
    if len(triangles) > faces:
        simplified: Any = fast_simplification.simplify(
            positions.astype(np.float32), triangles.astype(np.int32), target_count=faces
        )
        positions, triangles = simplified
        positions = _fitted(positions, triangles, solid)
    return Surface.of(*split_edges(positions - 1, triangles))


def _fitted(
    positions: NDArray[Any], triangles: NDArray[np.int32], field: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Vertices moved along their normals, by a voxel at most, until the faces lie as much outside as inside.

    The large faces of a simplified mesh cut through what is round, which would make all objects smaller.
    """
    start = moved = positions.astype(np.float64)
    for _ in range(_FITTING_ROUNDS):
        corners = moved[triangles]
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        areas = np.linalg.norm(across, axis=1, keepdims=True)
        distances = interpolated(field, _SAMPLES @ corners)
        sums = _vertex_sums(triangles, areas * (distances @ _SAMPLES), len(moved))
        weights = _vertex_sums(triangles, areas * _SAMPLES.sum(axis=0), len(moved))
        steps = (sums / np.maximum(weights, 1e-9))[:, None] * Surface.of(moved, triangles).normals
        shift = moved - steps - start
        moved = start + shift / np.maximum(np.linalg.norm(shift, axis=1, keepdims=True), 1)
    return moved


def _vertex_sums(
    triangles: NDArray[np.int32], values: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    """``[count]`` sums of the values ``[F, 3]`` of the corners at each vertex."""
    return np.bincount(triangles.ravel(), weights=values.ravel(), minlength=count).astype(np.float64)


def _without_strays(field: NDArray[np.float32]) -> NDArray[np.float32]:
    """The field without small parts and closed hollows; on the border of what is changed, just past zero."""
    inside = field < 0
    parts = labeled_parts(inside)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    if not sizes.any():
        raise InvalidInputError(
            "the splats have no surface that stops half of the light, expected a solid object"
        )
    small = (sizes < _LEAST_SHARE * sizes.sum())[parts] & inside
    outer = labeled_parts(~inside | small)
    hollow = (outer != outer[0, 0, 0]) & ~inside
    barely = np.float32(1e-3)
    return np.where(small, barely, np.where(hollow, -barely, field)).astype(np.float32)
