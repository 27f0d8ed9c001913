"""Rendering meshes on the CPU: colour, opacity, normals and depth from given cameras.

Triangles are rasterised at a multiple of the image size, transparent ones peeled layer by layer. The light is
fixed in the world of the object, so all views of an object agree in 3D.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffsplat.core import Cameras
from diffsplat.errors import InvalidInputError
from diffsplat.render.meshes import triangle_kernels
from diffsplat.render.meshes.triangle_mesh import Texture, TriangleMesh

MAX_LAYERS = 16
MIP_LEVELS = 6
SURFACE_THICKNESS = 0.03

FloatArray = NDArray[np.float32]
NO_LUT: FloatArray = np.zeros((0, 0, 0, 3), dtype=np.float32)


@dataclass(frozen=True)
class Samples:
    """What one camera sees, at sampling resolution, before light and averaging.

    Args:
        albedo: ``[L, S, S, 4]`` sRGB and opacity, nearest layer first.
        light: ``[L, S, S]`` factor on the albedo.
        depth: ``[H, W]`` camera z of the nearest surface, 0 where nothing is.
        normal: ``[H, W, 3]`` world normal of that surface.
        factor: samples per pixel and side.
    """

    albedo: FloatArray
    light: FloatArray
    depth: FloatArray
    normal: FloatArray
    factor: int

    def image(self, lut: FloatArray = NO_LUT) -> NDArray[np.uint8]:
        """``[H, W, 4]`` sRGB with straight alpha; ``lut [S, S, S, 3]`` maps the unlit colours."""
        height, width = self.depth.shape
        out = np.empty((height, width, 4), dtype=np.uint8)
        triangle_kernels.resolve_color(self.albedo, self.light, self.factor, lut, out)
        return out

    def unlit_image(self) -> NDArray[np.uint8]:
        """``[H, W, 4]`` the colours of the surface themselves, without light."""
        return replace(self, light=np.ones_like(self.light)).image()


class MeshRenderer:
    """Draws one mesh from any number of cameras."""

    def __init__(self, mesh: TriangleMesh, *, size: int, supersampling: int = 2) -> None:
        """Prepare a mesh for ``size x size`` images.

        Raises:
            ValueError: sizes below 1.
        """
        if size < 1 or supersampling < 1:
            raise InvalidInputError(f"size {size} and supersampling {supersampling} must both be at least 1")
        self.mesh = mesh
        self.size = size
        self.supersampling = supersampling
        self._textures = _pack_textures(mesh.textures)
        transparent = _transparent_faces(mesh)
        self._opaque_faces = np.flatnonzero(~transparent).astype(np.int32)
        self._transparent_faces = np.flatnonzero(transparent).astype(np.int32)

    def render(self, cameras: Cameras) -> Iterator[Samples]:
        """One :class:`Samples` for each of the cameras ``[V]``, whose size does not count.

        Raises:
            ValueError: part of the mesh is beside or behind a camera.
        """
        for pose, intrinsics in zip(cameras.camera_to_world, cameras.intrinsics, strict=True):
            yield self._render_one(pose.double().numpy(), intrinsics.double().numpy())

    def _render_one(self, pose: NDArray[np.float64], intrinsics: NDArray[np.float64]) -> Samples:
        mesh = self.mesh
        side = self.size * self.supersampling
        screen = np.empty((mesh.face_count, 3, 3), dtype=np.float64)
        corners = mesh.corners.astype(np.float32, copy=False)
        if not triangle_kernels.project(corners, np.linalg.inv(pose), intrinsics * side, screen):
            raise InvalidInputError("part of the mesh is behind a camera, expected all of it in front")
        level = np.zeros(mesh.face_count, dtype=np.int32)
        triangle_kernels.face_levels(screen, mesh.uv, mesh.texture, self._textures.table, MIP_LEVELS, level)
        surface = triangle_kernels.Surface(
            screen, corners, mesh.normals, mesh.uv, mesh.colors, mesh.texture, level
        )
        albedo, lights, nearest, normal = [], [], None, None
        hidden = np.zeros((side, side), dtype=np.bool_)
        for face, inverse in self._layers(screen, hidden):
            color = np.empty((side, side, 4), dtype=np.float32)
            light = np.zeros((side, side), dtype=np.float32)
            facing = np.zeros((side, side, 3), dtype=np.float32)
            out = triangle_kernels.Shaded(color, light, facing)
            triangle_kernels.shade(face, inverse, surface, self._textures, pose[:3, 3].copy(), out)
            hidden |= color[..., 3] >= triangle_kernels.OPAQUE
            albedo.append(color)
            lights.append(light)
            nearest, normal = _nearest(nearest, normal, inverse, facing, color[..., 3])
        return self._resolve(albedo, lights, nearest, normal)

    def _layers(
        self, screen: NDArray[np.float64], hidden: NDArray[np.bool_]
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Face index and inverse depth of each layer: transparent ones from the front, then the opaque.

        The caller marks in ``hidden [S, S]`` behind which samples nothing more is to be seen.
        """
        side = len(hidden)
        opaque_face = np.empty((side, side), dtype=np.int32)
        opaque = np.empty((side, side), dtype=np.float64)
        unlimited = np.full((side, side), np.inf)
        rasterize = triangle_kernels.rasterize
        rasterize(screen, self._opaque_faces, np.zeros((side, side)), unlimited, opaque_face, opaque)
        ceiling = unlimited
        if len(self._transparent_faces):
            for _ in range(MAX_LAYERS):
                face = np.empty((side, side), dtype=np.int32)
                inverse = np.empty((side, side), dtype=np.float64)
                hits = rasterize(screen, self._transparent_faces, opaque, ceiling, face, inverse)
                if not hits:
                    break
                yield face, inverse
                ceiling = np.where((face >= 0) & ~hidden, inverse * (1 - 1e-6), 0.0)
        yield opaque_face, opaque

    def _resolve(
        self, albedo: list[FloatArray], light: list[FloatArray], nearest: Any, normal: Any
    ) -> Samples:
        depth = np.empty((self.size, self.size), dtype=np.float32)
        facing = np.empty((self.size, self.size, 3), dtype=np.float32)
        triangle_kernels.resolve_surface(
            nearest, normal, self.supersampling, SURFACE_THICKNESS, depth, facing
        )
        return Samples(np.stack(albedo), np.stack(light), depth, facing, self.supersampling)


def _nearest(
    nearest: NDArray[Any] | None,
    normal: FloatArray | None,
    inverse: NDArray[Any],
    facing: FloatArray,
    alpha: FloatArray,
) -> tuple[NDArray[Any], FloatArray]:
    """Keep the front surface; layers come nearest first and fully cut-out samples do not count."""
    visible = alpha > 0.05
    if nearest is None or normal is None:
        return np.where(visible, inverse, 0.0), np.where(visible[..., None], facing, np.float32(0))
    behind = (nearest <= 0) & visible
    return np.where(behind, inverse, nearest), np.where(behind[..., None], facing, normal)


def _transparent_faces(mesh: TriangleMesh) -> NDArray[np.bool_]:
    """Faces whose colour or texture lets light through."""
    seen_through = mesh.colors[..., 3].min(axis=1) < 0.999
    cut = np.array([*(bool((t.pixels[..., 3] < 250).any()) for t in mesh.textures), False])
    return seen_through | cut[mesh.texture]


def _pack_textures(textures: tuple[Texture, ...]) -> triangle_kernels.TextureArray:
    """All textures with their mip levels and ways of looking them up."""
    sampling = np.array([_sampling(texture) for texture in textures]).reshape(-1, 4)
    table = np.zeros((max(1, len(textures)), MIP_LEVELS, 3), dtype=np.int64)
    blocks: list[FloatArray] = []
    start = 0
    for index, texture in enumerate(textures):
        level = texture.pixels.astype(np.float32)
        for step in range(MIP_LEVELS):
            height, width = level.shape[:2]
            table[index, step] = start, width, height
            blocks.append(level.reshape(-1, 4))
            start += height * width
            level = _halved(level)
    pixels = np.concatenate(blocks) if blocks else np.zeros((1, 4), dtype=np.float32)
    return triangle_kernels.TextureArray(table, sampling, np.ascontiguousarray(pixels, dtype=np.float32))


def _sampling(texture: Texture) -> tuple[float, float, float, float]:
    """Wrap along u and v, nearest, cutoff: see :class:`~triangle_kernels.TextureArray`."""
    across, down = (triangle_kernels.WRAPS.index(wrap) for wrap in texture.wrap)
    cutoff = triangle_kernels.NO_CUTOFF if texture.cutoff is None else texture.cutoff
    return across, down, texture.nearest, cutoff


def _halved(level: FloatArray) -> FloatArray:
    height, width = level.shape[:2]
    if height > 1:
        level = (level[0 : height // 2 * 2 : 2] + level[1 : height // 2 * 2 : 2]) * np.float32(0.5)
    if width > 1:
        level = (level[:, 0 : width // 2 * 2 : 2] + level[:, 1 : width // 2 * 2 : 2]) * np.float32(0.5)
    return level
