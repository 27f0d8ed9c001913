"""The denoiser of the embedded model: a small stock PixArt transformer over four views."""

import torch
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from torch import Tensor
from torch.nn import functional

from diffsplat.core import Cameras
from diffsplat.geometry import plucker_rays
from diffsplat.models.multiview import set_multiview_attention

PLUCKER_CHANNELS = 6
TIMESTEPS = 1000
"""Noise levels 0..1 are given to the network as 0..1000."""
SMALLEST_LEVEL = 1e-3
"""Noise level below which velocities are not amplified any further; below any that sampling visits."""


def make_denoiser(
    *,
    latent_channels: int,
    latent_size: int,
    views: int,
    width: int,
    layers: int,
    text_channels: int,
    patch: int,
) -> PixArtTransformer2DModel:
    """A PixArt transformer (Chen et al. 2024) with random weights whose self-attention spans the views.

    Args:
        latent_channels: channels of a latent.
        latent_size: edge of a view's latents.
        views: number of views of an object.
        width: width of the tokens, a multiple of 64.
        layers: number of transformer blocks.
        text_channels: length of a text token.
        patch: edge of the square of latents that makes a token.
    """
    if width % 64:
        raise ValueError(f"the denoiser's width is {width}, expected a multiple of 64")
    network = PixArtTransformer2DModel(
        num_attention_heads=width // 64,
        attention_head_dim=64,
        in_channels=latent_channels + PLUCKER_CHANNELS,
        out_channels=latent_channels,
        num_layers=layers,
        cross_attention_dim=width,
        sample_size=latent_size,
        patch_size=patch,
        caption_channels=text_channels,
        use_additional_conditions=False,
    )
    set_multiview_attention(network, views)
    return network


def denoiser_rays(cameras: Cameras, latent_size: int) -> Tensor:
    """``[B, V, 6, h, w]`` Pluecker rays of the views, brought to latent resolution by bilinear interpolation."""
    rays = plucker_rays(cameras)
    small = functional.interpolate(rays.flatten(0, 1), size=(latent_size, latent_size), mode="bilinear")
    return small.unflatten(0, rays.shape[:2])


def predict_latents(
    network: PixArtTransformer2DModel,
    noisy: Tensor,
    level: Tensor,
    text: tuple[Tensor, Tensor],
    rays: Tensor,
) -> Tensor:
    """The network's guess of the clean latents.

    Args:
        network: from :func:`make_denoiser`.
        noisy: ``[B, V, C, h, w]`` latents ``(1 - level) * latent + level * noise``.
        level: ``[B]`` noise level, 0 to 1, shared by the views of an object.
        text: tokens ``[B, T, D]`` and mask ``[B, T]``, True where a token counts.
        rays: ``[B, V, 6, h, w]`` from :func:`denoiser_rays`.

    Returns:
        ``[B, V, C, h, w]`` float32.
    """
    views = noisy.shape[1]
    tokens, mask = text
    longest = max(1, int(mask.sum(dim=1).max()))
    output = network(
        torch.cat([noisy, rays], dim=2).flatten(0, 1),
        encoder_hidden_states=tokens[:, :longest].repeat_interleave(views, dim=0),
        encoder_attention_mask=mask[:, :longest].repeat_interleave(views, dim=0).to(noisy.dtype),
        timestep=(level * TIMESTEPS).repeat_interleave(views),
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        return_dict=False,
    )[0]
    return output.unflatten(0, (-1, views)).float()


def predict_velocity(
    network: PixArtTransformer2DModel,
    noisy: Tensor,
    level: Tensor,
    text: tuple[Tensor, Tensor],
    rays: Tensor,
) -> Tensor:
    """Velocity ``noise - latent`` of the straight path from latents to noise (Lipman et al. 2023).

    The network predicts clean latents, from which the velocity follows (Li and He 2025, "Back to Basics: Let
    Denoising Generative Models Denoise"): with many channels in a token that is the easier target.
    Arguments and result as of :func:`predict_latents`.
    """
    clean = predict_latents(network, noisy, level, text, rays)
    return (noisy - clean) / level.clamp_min(SMALLEST_LEVEL)[:, None, None, None, None]
