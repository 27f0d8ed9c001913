"""Cameras on orbits around an object, and normals in the world of the first of them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.core import DEFAULT_FOCAL, DEFAULT_RADIUS, Cameras, tensor_checks
from diffsplat.core.without_autocast import without_autocast
from diffsplat.errors import InvalidInputError, require

RING_AZIMUTHS_DEG = (0.0, 90.0, 180.0, 270.0)
"""Azimuths of the four generation views."""

BETWEEN_AZIMUTHS_DEG = (45.0, 135.0, 225.0, 315.0)
"""In the middle between them."""

TEXT_ELEVATION_DEG = 10.0
"""Degrees above the horizon of views generated from text."""


def look_at(positions: Tensor, target: Tensor | None = None) -> Tensor:
    """Poses of cameras that look at a target with +Y up in the image.

    Args:
        positions: ``[*B, 3]`` camera centres, world units.
        target: ``[3]`` point to look at; the origin by default.

    Returns:
        ``[*B, 4, 4]`` camera-to-world poses, OpenCV axes. Straight above the target the upper edge of the image
        points to -Z, straight below to +Z.

    Raises:
        ValueError: when a camera is at its target.
    """
    tensor_checks.require_shape("look_at", "positions", positions, (3,))
    aim = torch.zeros(3, dtype=positions.dtype, device=positions.device) if target is None else target
    forward = aim - positions
    distance = torch.linalg.vector_norm(forward, dim=-1, keepdim=True)
    if distance.numel() and float(distance.min()) < 1e-8:
        raise ValueError("look_at got a camera at the target itself, expected some distance between them")
    forward = forward / distance
    up = torch.tensor([0.0, 1.0, 0.0], dtype=positions.dtype, device=positions.device).expand_as(forward)
    vertical = forward[..., 1:2].abs() > 1 - 1e-6
    ahead = torch.zeros_like(forward)
    ahead[..., 2] = torch.where(forward[..., 1] < 0, -1.0, 1.0)
    right = functional.normalize(
        torch.linalg.cross(forward, torch.where(vertical, ahead, up), dim=-1), dim=-1
    )
    down = torch.linalg.cross(forward, right, dim=-1)
    rotation = torch.stack([right, down, forward], dim=-1)
    pose = torch.zeros(*positions.shape[:-1], 4, 4, dtype=positions.dtype, device=positions.device)
    pose[..., :3, :3] = rotation
    pose[..., :3, 3] = positions
    pose[..., 3, 3] = 1
    return pose


def orbit_positions(azimuths_deg: Tensor, elevations_deg: Tensor, radius: float) -> Tensor:
    """``[*B, 3]`` points on a sphere: azimuth 0 is +Z, 90 is +X; a positive elevation is above the horizon."""
    azimuth, elevation = torch.deg2rad(azimuths_deg), torch.deg2rad(elevations_deg)
    flat = torch.cos(elevation)
    directions = torch.stack(
        [flat * torch.sin(azimuth), torch.sin(elevation), flat * torch.cos(azimuth)], dim=-1
    )
    return directions * radius


def orbit_cameras(
    azimuths_deg: Sequence[float] | Tensor,
    elevations_deg: Sequence[float] | Tensor | float,
    *,
    radius: float = DEFAULT_RADIUS,
    width: int,
    height: int,
    focal: float = DEFAULT_FOCAL,
) -> Cameras:
    """Cameras on a sphere about the origin, looking at it.

    Args:
        azimuths_deg: ``[V]`` degrees; 0 is +Z, 90 is +X.
        elevations_deg: ``[V]`` or one for all, degrees above the horizon.
        radius: distance from the origin, world units.
        width: image width in pixels.
        height: image height in pixels.
        focal: focal length divided by the image's width; pixels are square.

    Returns:
        ``[V]`` cameras.

    Raises:
        ValueError: for a radius or a size that is not positive.
    """
    azimuths = torch.as_tensor(azimuths_deg, dtype=torch.float32)
    elevations = torch.as_tensor(elevations_deg, dtype=torch.float32).expand_as(azimuths)
    require(radius > 0, "the orbit radius", f"{radius:g}", "a positive distance")
    require(min(width, height) >= 1, "the image size", f"{width} x {height}", "at least 1 x 1 pixels")
    poses = look_at(orbit_positions(azimuths, elevations, radius))
    intrinsics = torch.tensor([focal, focal * width / height, 0.5, 0.5]).expand(*azimuths.shape, 4)
    return Cameras(camera_to_world=poses, intrinsics=intrinsics, width=width, height=height)


def ring_cameras(elevation_deg: float = TEXT_ELEVATION_DEG, *, size: int) -> Cameras:
    """The four generation views: azimuths 0, 90, 180, 270 at one elevation (degrees above the horizon)."""
    return orbit_cameras(RING_AZIMUTHS_DEG, elevation_deg, width=size, height=size)


def turntable_cameras(
    frames: int, elevation_deg: float = TEXT_ELEVATION_DEG, *, size: int, radius: float = DEFAULT_RADIUS
) -> Cameras:
    """``frames`` cameras once around the object at one elevation (degrees above the horizon).

    Raises:
        ValueError: for fewer than one frame, or a radius that is not positive.
    """
    if frames < 1:
        raise InvalidInputError(f"got a turntable of {frames} frames, expected at least one")
    azimuths = torch.arange(frames, dtype=torch.float32) * (360.0 / frames)
    return orbit_cameras(azimuths, elevation_deg, radius=radius, width=size, height=size)


@without_autocast
def normals_to_first_view(normals: Tensor, cameras: Cameras) -> Tensor:
    """Turn world normals into the world of the first view (:meth:`Cameras.relative_to_first`).

    Args:
        normals: ``[*B, V, 3, H, W]`` vectors in -1..1.
        cameras: ``[*B, V]`` cameras in the same world as the normals.
    """
    tensor_checks.require_shape("normals_to_first_view", "normals", normals, (3, None, None))
    tensor_checks.require_batch("normals_to_first_view", "normals", normals.shape[:-3], cameras.batch_shape)
    return torch.einsum("...ij,...vjhw->...vihw", cameras.first_view_rotation().to(normals), normals)


def elevation_deg(cameras: Cameras) -> Tensor:
    """``[*B]`` degrees above the horizon of each camera as seen from the origin."""
    center = cameras.centers
    return torch.atan2(center[..., 1], torch.hypot(center[..., 0], center[..., 2])) * (180 / math.pi)
