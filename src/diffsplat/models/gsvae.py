"""The splat autoencoder of the embedded model: four 12-channel grids to a few hundred latent vectors and back."""

from dataclasses import dataclass
from typing import cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional

from diffsplat.core import GRID_CHANNELS, SplatGrid
from diffsplat.core.splat_grid import DEPTH, OPACITY, unit_range
from diffsplat.models.transformer import Transformer, patchify, unpatchify

_HEAD_WIDTH = 64
_LOG_VARIANCE_RANGE = (-12.0, 4.0)


@dataclass(frozen=True)
class LatentDistribution:
    """Diagonal Gaussian over latents, before normalisation.

    Args:
        mean: ``[B, V, C, h, w]``.
        log_variance: ``[B, V, C, h, w]``.
    """

    mean: Tensor
    log_variance: Tensor

    def sample(self) -> Tensor:
        """Draw ``[B, V, C, h, w]`` with torch's current generator."""
        return self.mean + torch.exp(0.5 * self.log_variance) * torch.randn_like(self.mean)

    def divergence(self) -> Tensor:
        """Kullback-Leibler divergence from the standard normal, averaged over all latents, nats."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance).mean()


class GSAutoencoder(ModelMixin, ConfigMixin):
    """Variational autoencoder of splat grids, made of transformer blocks over the patches of all views at once.

    Args:
        image_size: edge of the grids in pixels.
        views: number of views.
        patch: edge of a patch in pixels; a patch is one latent vector.
        latent_channels: length of a latent vector.
        dim: width of the tokens, an attention head is 64 wide.
        encoder_blocks: transformer blocks before the latents.
        decoder_blocks: transformer blocks after the latents.
        refiner_channels: width of the convolutions that smooth the seams between decoded patches; 0 for none.
    """

    latent_mean: Tensor
    latent_std: Tensor

    @register_to_config
    def __init__(
        self,
        image_size: int = 128,
        views: int = 4,
        patch: int = 8,
        latent_channels: int = 16,
        dim: int = 256,
        encoder_blocks: int = 3,
        decoder_blocks: int = 5,
        refiner_channels: int = 64,
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise ValueError(f"grids of {image_size} pixels cannot be cut into patches of {patch}")
        self.image_size, self.views, self.patch = image_size, views, patch
        self.latent_size = image_size // patch
        self.latent_channels = latent_channels
        heads = max(1, dim // _HEAD_WIDTH)
        pixels = GRID_CHANNELS * patch * patch
        tokens = views * self.latent_size**2
        self.encoder_in = nn.Linear(pixels, dim)
        self.encoder_position = nn.Parameter(torch.randn(1, tokens, dim) * 0.02)
        self.encoder = Transformer(dim, heads, encoder_blocks)
        self.encoder_out = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * latent_channels))
        self.decoder_in = nn.Linear(latent_channels, dim)
        self.decoder_position = nn.Parameter(torch.randn(1, tokens, dim) * 0.02)
        self.decoder = Transformer(dim, heads, decoder_blocks)
        self.decoder_out = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, pixels))
        self.refiner = SeamRefiner(refiner_channels) if refiner_channels else nn.Identity()
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Shape ``(V, C, h, w)`` of one object's latents."""
        return (self.views, self.latent_channels, self.latent_size, self.latent_size)

    def distribution(self, grid: SplatGrid) -> LatentDistribution:
        """The posterior over latents of ``[B, V, 12, H, W]`` grids."""
        self._check_grid(grid)
        tokens = self.encoder_in(patchify(hide_transparent(grid.values), self.patch))
        tokens = self.encoder_out(self.encoder(tokens + self.encoder_position)).float()
        latents = unpatchify(tokens, self.views, (self.latent_size, self.latent_size), 1)
        mean, log_variance = latents.chunk(2, dim=2)
        return LatentDistribution(mean, log_variance.clamp(*_LOG_VARIANCE_RANGE))

    def reconstruct(self, raw_latents: Tensor) -> Tensor:
        """Decode latents as they were drawn from :meth:`distribution`.

        Returns:
            ``[B, V, 12, H, W]`` grid values that may leave [-1, 1] a little: the loss needs their gradient.
        """
        tokens = self.decoder_in(patchify(raw_latents, 1))
        tokens = self.decoder_out(self.decoder(tokens + self.decoder_position))
        images = unpatchify(tokens, self.views, (self.image_size, self.image_size), self.patch)
        return self.refiner(images).float()

    def encode(self, grid: SplatGrid) -> Tensor:
        """``[B, V, C, h, w]`` normalised latents (zero mean, unit deviation over the training set)."""
        return self.normalize(self.distribution(grid).mean)

    def decode(self, latents: Tensor) -> SplatGrid:
        """Grids ``[B, V, 12, H, W]`` of normalised latents ``[B, V, C, h, w]``."""
        if tuple(latents.shape[1:]) != self.latent_shape:
            raise ValueError(f"latents have shape {tuple(latents.shape)}, expected [B, {self.latent_shape}]")
        return SplatGrid(self.reconstruct(self.denormalize(latents)).clamp(-1, 1))

    def normalize(self, raw_latents: Tensor) -> Tensor:
        """Bring latents to the statistics that the denoiser expects."""
        return (raw_latents - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]

    def denormalize(self, latents: Tensor) -> Tensor:
        """Undo :meth:`normalize`."""
        return latents * self.latent_std[:, None, None] + self.latent_mean[:, None, None]

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Store mean and deviation ``[C]`` of the raw latents of a training set."""
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std)

    def _check_grid(self, grid: SplatGrid) -> None:
        expected = (self.views, GRID_CHANNELS, self.image_size, self.image_size)
        if tuple(grid.values.shape[1:]) != expected:
            raise ValueError(f"the grid has shape {tuple(grid.values.shape)}, expected [B, {expected}]")


class SeamRefiner(nn.Module):
    """Two convolutions at half resolution whose sum with the input removes patch seams; starts as identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        folded = GRID_CHANNELS * 4
        self.widen = nn.Conv2d(folded, channels, 3, padding=1)
        self.narrow = nn.Conv2d(channels, folded, 3, padding=1)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(cast(Tensor, self.narrow.bias))

    def forward(self, images: Tensor) -> Tensor:
        """``[B, V, 12, H, W]`` to the same shape."""
        flat = functional.pixel_unshuffle(images.flatten(0, 1), 2)
        change = functional.pixel_shuffle(self.narrow(functional.silu(self.widen(flat))), 2)
        return images + change.unflatten(0, images.shape[:2])


def hide_transparent(values: Tensor) -> Tensor:
    """Fade every channel but opacity to zero where a Gaussian is transparent, so that only what shows is coded.

    Args:
        values: ``[B, V, 12, H, W]`` grid.
    """
    opacity = values[:, :, OPACITY]
    shown = unit_range(opacity)
    return torch.cat([values[:, :, : OPACITY.start] * shown, opacity, values[:, :, DEPTH] * shown], dim=2)
