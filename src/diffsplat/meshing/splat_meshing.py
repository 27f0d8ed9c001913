"""From splats to a mesh: the stages in order."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from diffsplat.core import Cameras, Splats
from diffsplat.errors import require
from diffsplat.meshing.depth_fusion import DepthViews, Lattice, fuse_depths
from diffsplat.meshing.object_framing import frame_object, surrounding_cameras
from diffsplat.meshing.surface_extraction import Surface, extract_surface
from diffsplat.meshing.texture_baking import bake_texture, surface_colors, unwrap
from diffsplat.render import render
from diffsplat.render.surface_depths import surface_depths

Origin = Literal["splats", "center", "base"]
"""Where the origin of a mesh is: as in the splats, in the middle of the box around it, or of that box's bottom."""

MAX_TEXTURE_SIZE = 8192
_BAND = 1.0
"""Voxels behind the middle of a surface within which Gaussians belong to it."""
_LIFT = 1.7
"""Standard deviations before a Gaussian's centre at which it counts. Alone, one of opacity 0.95 stops half of the light
at 1.2; those that overlap in a wall do so farther out, as the outlines of the object show."""

Report = Callable[[str], object]


@dataclass(frozen=True)
class MeshOptions:
    """How a mesh is made.

    Args:
        faces: most triangles.
        texture_size: pixels a side of the texture.
        vertex_colors: one colour a vertex, and no texture.
        origin: of the coordinates.
        resolution: voxels along the longest side of the object.
        views: cameras around it.
        image_size: pixels a side of their images.

    Raises:
        ValueError: for a number out of range.
    """

    faces: int = 10_000
    texture_size: int = 1024
    vertex_colors: bool = False
    origin: Origin = "splats"
    resolution: int = 192
    views: int = 48
    image_size: int = 512

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("faces", self.faces, 100, 10_000_000),
            ("texture size", self.texture_size, 64, MAX_TEXTURE_SIZE),
            ("resolution", self.resolution, 16, 1024),
            ("number of views", self.views, 8, 1000),
            ("image size", self.image_size, 64, 4096),
        ):
            require(least <= value <= most, f"the {name}", value, f"{least} to {most}")


@dataclass(frozen=True)
class ColoredMesh:
    """Triangles with a texture or with colours at the vertices; closed once vertices at one place are joined.

    Args:
        positions: ``[N, 3]`` float32, +Y up, in the unit of the splats.
        normals: ``[N, 3]`` float32 unit vectors, outwards.
        faces: ``[F, 3]`` int32, anticlockwise from outside.
        uv: ``[N, 2]`` texture coordinates, v downwards; None without a texture.
        texture: ``[H, W, 3]`` sRGB uint8, rows from the top; None without one.
        colors: ``[N, 3]`` sRGB uint8; None with a texture.
    """

    positions: NDArray[np.float32]
    normals: NDArray[np.float32]
    faces: NDArray[np.int32]
    uv: NDArray[np.float32] | None = None
    texture: NDArray[np.uint8] | None = None
    colors: NDArray[np.uint8] | None = None


@torch.no_grad()
def mesh_from_splats(
    splats: Splats, options: MeshOptions | None = None, report: Report = lambda _: None
) -> ColoredMesh:
    """A closed mesh of the object that the splats show.

    Args:
        splats: ``[N]``, +Y up.
        options: how it is made.
        report: called with the name of every stage that begins, of ``STAGES``.

    Raises:
        ValueError: when the splats show no solid object.
        ImportError: when a package of the extra ``mesh`` is not installed.
    """
    options = options or MeshOptions()
    frame = frame_object(splats)
    cameras = surrounding_cameras(options.views, options.image_size)
    lattice = Lattice.around(frame.low.numpy(), frame.high.numpy(), options.resolution)
    report("depths")
    band = _BAND * lattice.step
    middles, depths = (surface_depths(frame.splats, cameras, band, lift) for lift in (0.0, _LIFT))
    views = DepthViews.of(depths, middles, cameras, lattice.step)
    report("surface")
    found = extract_surface(fuse_depths(views, lattice), options.faces)
    surface = Surface(found.positions * lattice.step + lattice.low, found.normals, found.faces)
    report("images")
    images = _premultiplied_images(frame.splats, cameras)
    report("colours")
    mesh = _colored(surface, images, views, lattice.step, options)
    positions = mesh.positions.astype(np.float64) / frame.scale + frame.center.numpy()
    return replace(mesh, positions=(positions - _origin(positions, options.origin)).astype(np.float32))


STAGES = ("depths", "surface", "images", "colours")
"""What :func:`mesh_from_splats` reports, in order."""


def _colored(
    surface: Surface, images: NDArray[np.float32], views: DepthViews, voxel: float, options: MeshOptions
) -> ColoredMesh:
    normals = surface.normals.astype(np.float32)
    positions = surface.positions.astype(np.float32)
    if options.vertex_colors:
        colors = surface_colors(np.concatenate([positions, normals], axis=1), images, views, voxel)
        return ColoredMesh(positions, normals, surface.faces, colors=colors)
    charts = unwrap(surface, options.texture_size)
    texture = bake_texture(surface, charts, options.texture_size, images, views, voxel)
    return ColoredMesh(
        positions[charts.sources], normals[charts.sources], charts.faces, uv=charts.uv, texture=texture
    )


def _premultiplied_images(splats: Splats, cameras: Cameras) -> NDArray[np.float32]:
    """``[V, H, W, 4]`` colours on black, and alpha."""
    seen = render(splats, cameras, background=(0.0, 0.0, 0.0), normals=False)
    return torch.cat([seen.rgb, seen.alpha], dim=1).movedim(1, -1).contiguous().numpy()


def _origin(positions: NDArray[np.float64], origin: Origin) -> NDArray[np.float64]:
    low, high = positions.min(axis=0), positions.max(axis=0)
    match origin:
        case "splats":
            return np.zeros(3)
        case "center":
            return (low + high) / 2
        case "base":
            return np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
