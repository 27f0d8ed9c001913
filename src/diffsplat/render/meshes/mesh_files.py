"""Meshes from files: any format trimesh reads, as a flat list of textured triangles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffsplat.core.srgb import linear_to_srgb
from diffsplat.errors import InvalidInputError, optional_package

if TYPE_CHECKING:
    import trimesh

MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
TEXTURE_LIMIT = 512
BOUNDING_RADIUS = 0.46
# Modelling programs write MTL's Kd multiplied by a diffuse intensity whose default is 0.8.
MTL_DIFFUSE_GAIN = 1.25

FloatArray = NDArray[np.float32]
_NO_TEXTURE = -1


@dataclass(frozen=True)
class Texture:
    """An sRGB image with straight alpha, rows from the top: ``pixels [H, W, 4]`` uint8."""

    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class TriangleMesh:
    """Triangles with everything the renderer needs at each corner.

    Args:
        corners: ``[F, 3, 3]`` positions.
        normals: ``[F, 3, 3]`` unit shading normals.
        uv: ``[F, 3, 2]`` texture coordinates, v upwards.
        colors: ``[F, 3, 4]`` sRGB colour and opacity, 0..1, multiplied with the texture.
        texture: ``[F]`` index into ``textures``, -1 for none.
        textures: the images.
    """

    corners: FloatArray
    normals: FloatArray
    uv: FloatArray
    colors: FloatArray
    texture: NDArray[np.int32]
    textures: tuple[Texture, ...]

    @property
    def face_count(self) -> int:
        """Number of triangles."""
        return len(self.corners)

    def transformed(self, matrix: NDArray[np.floating]) -> TriangleMesh:
        """The mesh moved by ``matrix [4, 4]``; a mirroring matrix keeps the normals outside."""
        linear = np.asarray(matrix[:3, :3], dtype=np.float64)
        corners = self.corners @ linear.T + matrix[:3, 3]
        normals = self.normals @ np.linalg.inv(linear)
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
        return replace(self, corners=corners.astype(np.float32), normals=normals.astype(np.float32))

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest corner ``[3]`` of the bounding box."""
        points = self.corners.reshape(-1, 3).astype(np.float64)
        return points.min(axis=0), points.max(axis=0)

    def normalized(self, radius: float = BOUNDING_RADIUS) -> TriangleMesh:
        """Centred on the middle of the bounding box, the farthest corner at ``radius`` world units."""
        low, high = self.bounds()
        centre = (low + high) / 2
        reach = np.linalg.norm(self.corners.reshape(-1, 3) - centre, axis=1).max()
        if not np.isfinite(reach) or reach <= 0:
            raise InvalidInputError(
                f"the mesh has a bounding radius of {reach}, expected a positive finite size"
            )
        matrix = np.eye(4) * (radius / reach)
        matrix[:3, 3] = -centre * (radius / reach)
        matrix[3, 3] = 1.0
        return self.transformed(matrix)


def load_mesh(path: Path, *, nodes: str = "") -> TriangleMesh:
    """Read a mesh of any format in ``MESH_SUFFIXES``: the scene nodes whose name starts with ``nodes``.

    Raises:
        ValueError: the file holds no triangle or cannot be read.
    """
    trimesh = _import_trimesh()
    try:
        scene = trimesh.load_scene(str(path), process=False)
        parts = [
            _part(scene.geometry[geometry], np.asarray(transform, dtype=np.float64))
            for transform, geometry in (
                scene.graph[node] for node in scene.graph.nodes_geometry if str(node).startswith(nodes)
            )
            if isinstance(scene.geometry[geometry], trimesh.Trimesh)
        ]
    except MemoryError:
        raise
    except Exception as error:  # trimesh's readers raise whatever a broken file happens to trigger
        raise InvalidInputError(
            f"{path}: cannot be read as a mesh ({type(error).__name__}: {error})"
        ) from error
    mesh = _joined([part for part in parts if part.face_count > 0])
    if mesh is None:
        raise InvalidInputError(f"{path}: holds no triangles")
    return mesh


def _import_trimesh() -> Any:
    with optional_package("reading meshes", "trimesh", "data"):
        import trimesh
    return trimesh


def _joined(parts: list[TriangleMesh]) -> TriangleMesh | None:
    if not parts:
        return None
    textures: list[Texture] = []
    known: dict[bytes, int] = {}
    indices = []
    for part in parts:
        places = []
        for texture in part.textures:
            key = texture.pixels.shape[0].to_bytes(4, "little") + texture.pixels.tobytes()
            if key not in known:
                known[key] = len(textures)
                textures.append(texture)
            places.append(known[key])
        table = np.array([*places, _NO_TEXTURE], dtype=np.int32)
        indices.append(table[part.texture])

    def stack(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    return TriangleMesh(
        stack("corners"),
        stack("normals"),
        stack("uv"),
        stack("colors"),
        np.concatenate(indices),
        tuple(textures),
    )


def _part(mesh: trimesh.Trimesh, transform: NDArray[np.float64]) -> TriangleMesh:
    faces = np.asarray(mesh.faces)
    vertices = np.asarray(mesh.vertices, dtype=np.float64)
    corners = vertices[faces]
    edges = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(edges, axis=1)
    keep = np.isfinite(corners).all(axis=(1, 2)) & (area > 0)
    faces, corners, flat = faces[keep], corners[keep], (edges[keep] / area[keep, None])
    count = len(faces)
    uv, colors, texture, textures = _appearance(mesh, faces, keep)
    part = TriangleMesh(
        corners.astype(np.float32),
        _corner_normals(mesh, faces, flat),
        uv,
        colors,
        np.full(count, texture, dtype=np.int32),
        textures,
    )
    return part if np.allclose(transform, np.eye(4)) else part.transformed(transform)


def _corner_normals(mesh: trimesh.Trimesh, faces: NDArray[Any], flat: NDArray[np.float64]) -> FloatArray:
    """Normals of the file where it has them, of the triangles where not; ``[F, 3, 3]``."""
    spread = np.repeat(flat[:, None], 3, axis=1)
    if "vertex_normals" not in mesh._cache:
        return spread.astype(np.float32)
    normals = np.asarray(mesh.vertex_normals, dtype=np.float64)[faces]
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    usable = np.isfinite(normals).all(axis=-1, keepdims=True) & (length > 1e-6)
    normals = np.where(usable, normals / np.where(usable, length, 1.0), spread)
    return normals.astype(np.float32)


def _appearance(
    mesh: trimesh.Trimesh, faces: NDArray[Any], keep: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray, int, tuple[Texture, ...]]:
    """Texture coordinates ``[F, 3, 2]``, colours ``[F, 3, 4]``, texture index and textures."""
    visual: Any = mesh.visual
    count = len(faces)
    uv = np.zeros((count, 3, 2), dtype=np.float32)
    colors = np.ones((count, 3, 4), dtype=np.float32)
    if visual.kind == "texture":
        factor, image = _material(visual.material)
        colors *= factor
        painted = _vertex_paint(visual)
        if painted is not None:
            colors *= painted[faces]
        if image is not None and visual.uv is not None and len(visual.uv) == len(mesh.vertices):
            uv = np.nan_to_num(np.asarray(visual.uv, dtype=np.float32))[faces][..., :2]
            return uv, colors, 0, (image,)
    elif visual.kind == "face":
        colors *= (np.asarray(visual.face_colors)[keep][:, None] / 255.0).astype(np.float32)
    elif visual.kind == "vertex":
        colors *= (np.asarray(visual.vertex_colors)[faces] / 255.0).astype(np.float32)
    else:
        colors[..., :3] = 0.7
    return uv, colors, _NO_TEXTURE, ()


def _vertex_paint(visual: Any) -> FloatArray | None:
    """glTF's COLOR_0 ``[N, 4]``, brought from linear light to sRGB."""
    paint = visual.vertex_attributes.get("color")
    if paint is None:
        return None
    paint = np.asarray(paint)
    scale = 1.0 if paint.dtype.kind == "f" else float(np.iinfo(paint.dtype).max)
    values = paint.astype(np.float32) / scale
    if values.shape[1] == 3:
        values = np.concatenate([values, np.ones((len(values), 1), dtype=np.float32)], axis=1)
    return np.concatenate([linear_to_srgb(values[:, :3].clip(0, 1)), values[:, 3:]], axis=1)


def _material(material: Any) -> tuple[FloatArray, Texture | None]:
    """Colour factor ``[4]`` in sRGB with opacity, and the base colour image."""
    if type(material).__name__ == "PBRMaterial":
        factor = _bytes_to_unit(material.baseColorFactor)
        factor[:3] = linear_to_srgb(factor[:3].clip(0, 1))
        opaque = material.alphaMode in (None, "OPAQUE")
        if opaque:
            factor[3] = 1.0
        return factor, _texture(material.baseColorTexture, keep_alpha=not opaque)
    image = getattr(material, "image", None)
    diffuse = _bytes_to_unit(getattr(material, "diffuse", None))
    properties = getattr(material, "kwargs", None) or {}
    diffuse[3] = _opacity(properties, diffuse[3])
    diffuse[:3] = 1.0 if image is not None else np.minimum(diffuse[:3] * MTL_DIFFUSE_GAIN, 1.0)
    return diffuse, _texture(image, keep_alpha=True)


def _opacity(properties: dict[str, Any], otherwise: float) -> float:
    """MTL's ``d`` (dissolve) or ``Tr`` (its opposite), 0..1."""
    for key, flip in (("d", False), ("tr", True)):
        value = properties.get(key, properties.get(key.capitalize()))
        if value is not None:
            number = float(np.ravel(np.asarray(value, dtype=np.float64))[-1])
            return float(np.clip(1.0 - number if flip else number, 0.0, 1.0))
    return float(otherwise)


def _bytes_to_unit(color: Any) -> FloatArray:
    values = np.ones(4, dtype=np.float32)
    if color is not None:
        given = np.asarray(color).ravel()[:4]
        scale = 1.0 if given.dtype.kind == "f" else 255.0
        values[: len(given)] = given.astype(np.float32) / scale
    return values


def _texture(image: Any, *, keep_alpha: bool) -> Texture | None:
    if image is None:
        return None
    picture = image.convert("RGBA")
    if max(picture.size) > TEXTURE_LIMIT:
        scale = TEXTURE_LIMIT / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, reducing_gap=2.0)
    pixels = np.array(picture)
    if not keep_alpha:
        pixels[..., 3] = 255
    return Texture(pixels)


def find_meshes(folder: Path) -> Iterable[Path]:
    """All mesh files below ``folder``, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in MESH_SUFFIXES)
