"""Control maps: depth, normals or edges of the first view, as the released ControlNets were trained on."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.core import Cameras
from diffsplat.errors import InvalidInputError, require
from diffsplat.geometry import TEXT_ELEVATION_DEG, ring_cameras
from diffsplat.images.canny import canny_edges, grey_of
from diffsplat.images.depth_control_map import depth_control_map
from diffsplat.io.file_access import require_readable
from diffsplat.io.image_files import to_pixels
from diffsplat.io.splat_formats import SPLAT_FORMATS, holds_splats, read_splats
from diffsplat.io.splat_suffixes import splat_suffix
from diffsplat.pretrained.release_catalogue import ControlKind
from diffsplat.render import render
from diffsplat.render.meshes.mesh_files import MESH_SUFFIXES, load_mesh
from diffsplat.render.meshes.mesh_renderer import MeshRenderer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ObjectView:
    """What the first generation camera sees of an object.

    Args:
        rgb: ``[3, H, W]`` sRGB 0..1 on white.
        alpha: ``[1, H, W]`` coverage 0..1.
        depth: ``[1, H, W]`` camera z, world units, 0 where nothing is.
        normal: ``[3, H, W]`` unit normals in the world of the first view, zero where nothing is.
    """

    rgb: Tensor
    alpha: Tensor
    depth: Tensor
    normal: Tensor


def control_maps_from(
    path: str | Path, kind: ControlKind, *, elevation_deg: float = TEXT_ELEVATION_DEG, size: int = 256
) -> Tensor:
    """``[3, size, size]`` 0..1 on white: the control image of an object in a file, seen by the first generation camera.

    Args:
        path: a splat file, rendered where its splats are, or a mesh, which is centred and scaled.
        kind: which map.
        elevation_deg: degrees above the horizon.
        size: pixels per side.

    Raises:
        ValueError: when the file cannot be read, nothing of it is in view, or an option is out of range.
    """
    known = ", ".join(get_args(ControlKind))
    require(kind in get_args(ControlKind), "the control", repr(kind), f"one of {known}")
    view = view_of_object(path, elevation_deg=elevation_deg, size=size)
    match kind:
        case "depth":
            return depth_control_map(view.depth, view.alpha)
        case "normal":
            return (view.normal * 0.5 + 0.5) * view.alpha + (1 - view.alpha)
        case "canny":
            return canny_map(view.rgb)


def canny_map(image: Tensor) -> Tensor:
    """``[3, H, W]`` of zeros and ones: edges, black on white, of the luma of an sRGB image at thresholds 100 and 200.

    Raises:
        ValueError: for another shape, or NaN.
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise InvalidInputError(f"canny_map got an image of shape {tuple(image.shape)}, expected [3, H, W]")
    edges = torch.from_numpy(canny_edges(grey_of(to_pixels(image))))
    return (~edges).to(image).expand(3, -1, -1)


def view_of_object(path: str | Path, *, elevation_deg: float, size: int) -> ObjectView:
    """The first generation view of a splat file or a mesh; see :func:`control_maps_from`.

    Raises:
        ValueError: for an elevation or a size out of range, a file that cannot be read, or one that shows nothing.
    """
    if not math.isfinite(elevation_deg) or abs(elevation_deg) > 90:
        raise InvalidInputError(f"the elevation is {elevation_deg:g}, expected degrees from -90 to 90")
    require(size >= 1, "the size", size, "a positive whole number of pixels")
    source = require_readable(path)
    camera = ring_cameras(elevation_deg, size=size)[:1]
    view = _view_of_splats(source, camera) if _is_splat_file(source) else _view_of_mesh(source, camera)
    if float(view.alpha.max()) < 0.05:
        raise InvalidInputError(
            f"nothing of {str(path)!r} is visible from the first view, expected an object around the origin that "
            "fits into a sphere of radius 0.5"
        )
    return view


def _is_splat_file(path: Path) -> bool:
    suffix = path.suffix.lower()
    if splat_suffix(path) is not None:
        return holds_splats(path)
    if suffix in MESH_SUFFIXES:
        return False
    known = ", ".join(sorted({*SPLAT_FORMATS, *MESH_SUFFIXES}))
    raise InvalidInputError(f"{str(path)!r} has the suffix {suffix!r}, expected splats or a mesh: {known}")


def _view_of_splats(path: Path, camera: Cameras) -> ObjectView:
    with torch.no_grad():
        rendering = render(read_splats(path), camera)
    alpha, depth, normal = rendering.alpha[0], rendering.depth[0], cast(Tensor, rendering.normal)[0]
    # The depth of a pixel with little coverage may be that of a lone splat far behind the object.
    solid = depth[alpha > 0.5 * alpha.max()]
    farthest = solid.max() if len(solid) else depth.max()
    return ObjectView(
        rgb=rendering.rgb[0].clamp(0, 1),
        alpha=alpha.clamp(0, 1),
        depth=depth.clamp(max=farthest),
        normal=functional.normalize(normal, dim=0),
    )


def _view_of_mesh(path: Path, camera: Cameras) -> ObjectView:
    mesh = load_mesh(path)
    if mesh.losses:
        logger.warning("%s: %s", path, "; ".join(loss.text for loss in mesh.losses))
    renderer = MeshRenderer(mesh.normalized(), size=camera.width)
    (samples,) = renderer.render(camera)
    image = torch.from_numpy(samples.image().astype(np.float32) / 255).permute(2, 0, 1)
    alpha = image[3:]
    return ObjectView(
        rgb=image[:3] * alpha + (1 - alpha),
        alpha=alpha,
        depth=torch.from_numpy(samples.depth)[None],
        normal=functional.normalize(torch.from_numpy(samples.normal).permute(2, 0, 1), dim=0),
    )
