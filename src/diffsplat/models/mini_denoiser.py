"""Making the denoiser of the embedded model, and its ray inputs."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from diffsplat.core import Cameras, PixelGrid
from diffsplat.errors import InvalidInputError
from diffsplat.geometry import plucker_rays
from diffsplat.models.multiview_pixart import MultiViewPixArt

PLUCKER_CHANNELS = 6
TIMESTEPS = 1000
"""Noise levels 0..1 are given to the network as 0..1000."""
SMALLEST_LEVEL = 1e-3
"""Noise level below which velocities are not amplified any further; below any that sampling visits."""


def make_denoiser(
    *,
    latent_channels: int,
    latent_size: int,
    width: int,
    layers: int,
    text_channels: int,
    patch: int,
    condition_channels: int = 0,
) -> MultiViewPixArt:
    """A denoiser with random weights.

    Args:
        latent_channels: channels of a latent.
        latent_size: edge of a view's latents.
        width: width of the tokens, a multiple of 64.
        layers: number of transformer blocks.
        text_channels: length of a text token.
        patch: edge of the square of latents that makes a token.
        condition_channels: of an image or a control map of view 0, see :mod:`~diffsplat.models.condition_encoder`; 0
            for a denoiser of text alone.
    """
    if width % 64:
        raise InvalidInputError(f"the denoiser's width is {width}, expected a multiple of 64")
    return MultiViewPixArt(
        num_attention_heads=width // 64,
        attention_head_dim=64,
        in_channels=latent_channels + PLUCKER_CHANNELS + condition_channels,
        out_channels=latent_channels,
        num_layers=layers,
        sample_size=latent_size,
        patch_size=patch,
        caption_channels=text_channels,
    )


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
