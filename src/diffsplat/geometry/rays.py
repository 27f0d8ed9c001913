"""Viewing rays and their Pluecker coordinates."""

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.core import Cameras, PixelGrid
from diffsplat.core.without_autocast import without_autocast
from diffsplat.geometry.vectors import cross


@without_autocast
def ray_directions(cameras: Cameras, grid: PixelGrid = "center") -> Tensor:
    """``[*B, 3, H, W]`` unit viewing directions in world axes.

    ``center`` sends rays through the pixel centres. ``legacy`` repeats a quirk that every released DiffSplat
    checkpoint was trained with: half an image is added to pixel coordinates that are already normalised, so its
    rays are those of a principal point half an image away.
    """
    coordinates = cameras.pixel_coordinates(grid)
    if grid == "legacy":
        coordinates = coordinates + 0.5
    directions = functional.normalize(cameras.camera_directions(coordinates), dim=-1)
    rotation = cameras.camera_to_world[..., None, :3, :3]
    return (directions @ rotation.mT).movedim(-1, -3)


@without_autocast
def plucker_rays(cameras: Cameras, grid: PixelGrid = "center") -> Tensor:
    """``[*B, 6, H, W]`` Pluecker coordinates of the viewing rays: moment ``o x d``, then direction ``d``.

    Args:
        cameras: ``[*B]`` cameras; ``o`` is the camera centre in world units.
        grid: see :func:`ray_directions`.
    """
    directions = ray_directions(cameras, grid)
    moments = cross(cameras.centers[..., None, None], directions, dim=-3)
    return torch.cat([moments, directions], dim=-3)
