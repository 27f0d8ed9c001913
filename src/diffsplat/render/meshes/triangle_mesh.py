"""Triangle meshes in memory: parts with one material each, joined to a flat list of textured triangles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diffsplat.errors import InvalidInputError, require

BOUNDING_RADIUS = 0.46
UNPAINTED = 0.7
"""Grey of a surface for which the file gives no colour."""

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
Wrap = Literal["repeat", "clamp", "mirror"]
_NO_TEXTURE = -1
_FARTHEST_UV = 1e5


@dataclass(frozen=True)
class Texture:
    """An sRGB image with straight alpha and how it is looked up.

    Args:
        pixels: ``[H, W, 4]`` uint8, rows from the top.
        wrap: what lies beyond 0..1 along u and v.
        nearest: whether texels stay sharp when they are enlarged.
        cutoff: opacity below which the surface is cut away and from which it is solid; None blends.
    """

    pixels: NDArray[np.uint8]
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")
    nearest: bool = False
    cutoff: float | None = None


@dataclass(frozen=True)
class Material:
    """How a surface looks: sRGB colour and opacity ``[4]``, multiplied with the texture if there is one."""

    color: FloatArray = field(default_factory=lambda: np.ones(4, dtype=np.float32))
    texture: Texture | None = None


UNPAINTED_MATERIAL = Material(np.array([UNPAINTED, UNPAINTED, UNPAINTED, 1], dtype=np.float32))


@dataclass(frozen=True)
class MeshLoss:
    """Something that a mesh file asks for and its triangles lack.

    Args:
        text: what, such as ``its texture 'wood.png' is missing``.
        of_color: whether the object's colours are no longer to be trusted.
    """

    text: str
    of_color: bool


class LossList:
    """Losses of one file, each kept once."""

    def __init__(self) -> None:
        self._losses: dict[MeshLoss, None] = {}

    def color(self, text: str) -> None:
        """Note something that changes the object's colours."""
        self._losses[MeshLoss(text, of_color=True)] = None

    def part(self, text: str) -> None:
        """Note something that leaves the colours true."""
        self._losses[MeshLoss(text, of_color=False)] = None

    def all(self) -> tuple[MeshLoss, ...]:
        """What was noted, in order."""
        return tuple(self._losses)


@dataclass(frozen=True)
class MeshPart:
    """Triangles with one material.

    Args:
        corners: ``[F, 3, 3]`` positions, in double precision until the object is centred.
        material: their material.
        normals: ``[F, 3, 3]`` of any length, None for those of the triangles.
        uv: ``[F, 3, 2]`` texture coordinates, v upwards.
        colors: ``[F, 3, 4]`` sRGB colour and opacity, multiplied with those of the material.
    """

    corners: DoubleArray
    material: Material
    normals: DoubleArray | None = None
    uv: NDArray[Any] | None = None
    colors: NDArray[Any] | None = None


@dataclass(frozen=True)
class TriangleMesh:
    """Triangles with everything the renderer needs at each corner.

    Args:
        corners: ``[F, 3, 3]`` positions; double precision as read, single once centred.
        normals: ``[F, 3, 3]`` unit shading normals.
        uv: ``[F, 3, 2]`` texture coordinates, v upwards.
        colors: ``[F, 3, 4]`` sRGB colour and opacity, 0..1, multiplied with the texture.
        texture: ``[F]`` index into ``textures``, -1 for none.
        textures: the images.
        losses: what the file asks for and the triangles lack.
    """

    corners: NDArray[np.floating]
    normals: FloatArray
    uv: FloatArray
    colors: FloatArray
    texture: NDArray[np.int32]
    textures: tuple[Texture, ...]
    losses: tuple[MeshLoss, ...] = ()

    @property
    def face_count(self) -> int:
        """Number of triangles."""
        return len(self.corners)

    @property
    def has_true_colors(self) -> bool:
        """Whether nothing was lost that changes the object's colours."""
        return not any(loss.of_color for loss in self.losses)

    def transformed(self, matrix: NDArray[np.floating]) -> TriangleMesh:
        """The mesh moved by ``matrix [4, 4]``; a mirroring matrix keeps the normals outside."""
        normals = unit_vectors(self.normals @ normal_matrix(matrix))
        return replace(self, corners=moved_points(self.corners, matrix), normals=normals.astype(np.float32))

    def bounds(self) -> tuple[DoubleArray, DoubleArray]:
        """Lowest and highest corner ``[3]`` of the bounding box."""
        points = self.corners.reshape(-1, 3).astype(np.float64)
        return points.min(axis=0), points.max(axis=0)

    def normalized(self, radius: float = BOUNDING_RADIUS) -> TriangleMesh:
        """Centred on the middle of the bounding box, the farthest corner at ``radius`` world units.

        Raises:
            ValueError: the mesh has no size, or an infinite one.
        """
        low, high = self.bounds()
        centered = self.corners - (low + high) / 2
        reach = np.linalg.norm(centered.reshape(-1, 3), axis=1).max()
        require(0 < reach < np.inf, "the bounding radius of the mesh", reach, "a positive finite size")
        return replace(self, corners=(centered * (radius / reach)).astype(np.float32))


def moved_points(points: NDArray[np.floating], matrix: NDArray[np.floating]) -> DoubleArray:
    """``points [..., 3]`` moved by ``matrix [4, 4]``."""
    return points.astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def normal_matrix(matrix: NDArray[np.floating]) -> DoubleArray:
    """``[3, 3]`` that normals (row vectors) are multiplied with; it also stands for flattening matrices."""
    x, y, z = np.asarray(matrix[:3, :3], dtype=np.float64)
    cofactors = np.stack([np.cross(y, z), np.cross(z, x), np.cross(x, y)])
    return cofactors.T * (-1 if np.dot(x, cofactors[0]) < 0 else 1)


def unit_vectors(vectors: NDArray[np.floating]) -> DoubleArray:
    """``vectors [..., 3]`` at length 1; zero stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)


def joined_parts(parts: Sequence[MeshPart], losses: LossList) -> TriangleMesh:
    """One mesh of all parts, without triangles that have no area or are not finite.

    Raises:
        ValueError: no triangle is left.
    """
    pieces = [piece for part in parts if (piece := _drawable(part, losses)).face_count]
    if not pieces:
        lost = "".join(f"; {loss.text}" for loss in losses.all())
        raise InvalidInputError(f"holds no triangles{lost}")
    textures: dict[Any, Texture] = {}
    places: dict[Any, int] = {}
    indices = []
    for piece in pieces:
        place = _NO_TEXTURE
        for texture in piece.textures:
            key = (id(texture.pixels), texture.wrap, texture.nearest, texture.cutoff)
            textures.setdefault(key, texture)
            place = places.setdefault(key, len(places))
        indices.append(np.full(piece.face_count, place, dtype=np.int32))

    def stacked(name: str) -> Any:
        return np.concatenate([getattr(piece, name) for piece in pieces])

    return TriangleMesh(
        stacked("corners"),
        stacked("normals"),
        stacked("uv"),
        stacked("colors"),
        np.concatenate(indices),
        tuple(textures.values()),
        losses.all(),
    )


def _drawable(part: MeshPart, losses: LossList) -> TriangleMesh:
    """A part as a mesh with at most one texture, which all its triangles share."""
    edges = np.cross(part.corners[:, 1] - part.corners[:, 0], part.corners[:, 2] - part.corners[:, 0])
    area = np.linalg.norm(edges, axis=1)
    finite = np.isfinite(area)
    if not finite.all():
        losses.part(f"{(~finite).sum()} of its triangles have corners that are not finite")
    keep = finite & (area > 0)
    flat = np.repeat((edges[keep] / area[keep, None])[:, None], 3, axis=1)
    count = int(keep.sum())
    colors = np.tile(part.material.color, (count, 3, 1)).astype(np.float32)
    if part.colors is not None:
        colors *= part.colors[keep].astype(np.float32)
    texture = part.material.texture
    if texture is not None and part.uv is None:
        losses.color("one of its textures has no coordinates")
        texture = None
    uv = (
        np.zeros((count, 3, 2))
        if part.uv is None
        else np.nan_to_num(part.uv[keep]).clip(-_FARTHEST_UV, _FARTHEST_UV)
    )
    return TriangleMesh(
        part.corners[keep],
        _shading_normals(None if part.normals is None else part.normals[keep], flat),
        uv.astype(np.float32),
        colors,
        np.zeros(count, dtype=np.int32),
        () if texture is None else (_without_fringe(texture, uv),),
    )


def _without_fringe(texture: Texture, uv: NDArray[Any]) -> Texture:
    """A texture with holes that is not tiled, clamped so that its borders do not show the opposite ones."""
    if not uv.size or texture.pixels[..., 3].min() == 255:
        return texture
    low, high = uv.reshape(-1, 2).min(axis=0), uv.reshape(-1, 2).max(axis=0)
    across, down = (
        "clamp" if low[axis] >= 0 and high[axis] <= 1 else wrap for axis, wrap in enumerate(texture.wrap)
    )
    return replace(texture, wrap=(across, down))


def _shading_normals(given: DoubleArray | None, flat: DoubleArray) -> FloatArray:
    """``[F, 3, 3]`` the file's normals where they are usable, the triangles' own where not."""
    if given is None:
        return flat.astype(np.float32)
    length = np.linalg.norm(given, axis=-1, keepdims=True)
    usable = np.isfinite(length) & (length > 1e-6)
    return np.where(usable, given / np.where(usable, length, 1.0), flat).astype(np.float32)
