"""Rays of views at latent size, noise levels of timesteps, and channel counts of denoisers."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from diffsplat.core import Cameras, PixelGrid
from diffsplat.geometry import plucker_rays

PLUCKER_CHANNELS = 6
TIMESTEPS = 1000
"""Noise levels 0..1 are given to the network as 0..1000."""
SMALLEST_LEVEL = 1e-3
"""Noise level below which velocities are not amplified any further; below any that sampling visits."""


def denoised_channels(config: Mapping[str, Any]) -> int:
    """How many channels of the latents a network works on, by its configuration; PixArt's also predict variances."""
    return int(config["out_channels"])


def noise_levels(timestep: Tensor) -> Tensor:
    """``[B, 1, 1, 1, 1]`` noise levels of timesteps ``[B]``, from :data:`SMALLEST_LEVEL` to 1, for latents of views."""
    return (timestep / TIMESTEPS).clamp_min(SMALLEST_LEVEL)[:, None, None, None, None]


def denoiser_rays(cameras: Cameras, latent_size: int, grid: PixelGrid = "center") -> Tensor:
    """``[B, V, 6, h, w]`` Pluecker rays of the views, brought to latent resolution by bilinear interpolation."""
    rays = plucker_rays(cameras, grid)
    small = functional.interpolate(rays.flatten(0, 1), size=(latent_size, latent_size), mode="bilinear")
    return small.unflatten(0, rays.shape[:2])
