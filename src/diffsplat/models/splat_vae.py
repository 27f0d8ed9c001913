"""The released splat autoencoder: an image VAE of 12 channels, and a tiny decoder for fast rendering losses."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderTiny, DiagonalGaussianDistribution
from torch import FloatTensor, Tensor

from diffsplat.core import GRID_CHANNELS, PixelGrid, SplatGrid
from diffsplat.errors import InvalidInputError
from diffsplat.models.denoiser_families import VARIANTS
from diffsplat.models.network_base_class import BaseNetwork, keep_arguments

DecoderKind = Literal["full", "tiny"]

FULL_SIZE: dict[str, Any] = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
"""Arguments of ``AutoencoderKL`` that all three image VAEs share."""

TINY_WIDTHS = (64, 64, 64, 64)
TINY_BLOCKS = (3, 3, 3, 1)


class SplatVAE(BaseNetwork):
    """Autoencoder of splat grids, each view an image of its own (DiffSplat, ICLR 2025, section 3.2).

    Args:
        image_vae: arguments of diffusers' ``AutoencoderKL`` but the numbers of channels in and out, which are 12;
            the block types follow from ``block_out_channels``. The Stable Diffusion VAE by default.
        tiny_widths: channels of the tiny decoder's stages; empty for none.
        tiny_blocks: residual blocks in each of these stages.
        image_size: edge of the grids in pixels.
        views: number of views of an object.
        pixel_grid: pixel grid that decoded depths are unprojected with, that of the reconstructor: the released
            weights learned the legacy one.

    Raises:
        ValueError: for a size that the encoder's strides do not divide, or widths without as many blocks.
    """

    @keep_arguments
    def __init__(
        self,
        image_vae: Mapping[str, Any] | None = None,
        tiny_widths: Sequence[int] = TINY_WIDTHS,
        tiny_blocks: Sequence[int] = TINY_BLOCKS,
        image_size: int = 256,
        views: int = 4,
        pixel_grid: PixelGrid = "legacy",
    ) -> None:
        super().__init__()
        self.pixel_grid: PixelGrid = pixel_grid
        self.vae = AutoencoderKL(**_arguments(image_vae or {**FULL_SIZE, **VARIANTS["sd"]}))
        settings: Any = self.vae.config
        self.scaling_factor = float(settings.scaling_factor)
        self.shift_factor = float(settings.shift_factor or 0.0)
        self.latent_channels = int(settings.latent_channels)
        self.factor = 2 ** (len(settings.block_out_channels) - 1)
        if image_size % self.factor:
            raise InvalidInputError(f"grids of {image_size} pixels cannot be divided by {self.factor}")
        self.image_size, self.views = image_size, views
        self.latent_size = image_size // self.factor
        self.tiny_decoder = _tiny_decoder(self.latent_channels, tiny_widths, tiny_blocks)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Shape ``(V, C, h, w)`` of one object's latents."""
        return (self.views, self.latent_channels, self.latent_size, self.latent_size)

    def posterior(self, grid: SplatGrid) -> DiagonalGaussianDistribution:
        """Distribution of the unscaled latents of grids ``[B, V, 12, H, W]``.

        Its tensors are ``[B * V, C, h, w]``, its ``kl()`` the divergence from a unit Gaussian of every view.

        Raises:
            ValueError: for a height or width that the factor does not divide.
        """
        height, width = grid.values.shape[-2:]
        if height % self.factor or width % self.factor:
            raise InvalidInputError(f"a grid of {width} x {height} pixels cannot be divided by {self.factor}")
        packed = grid.pack().to(self.vae.dtype)
        return self.vae.encode(packed, return_dict=False)[0]

    def scale(self, unscaled: Tensor) -> Tensor:
        """Latents as a denoiser sees them, of unscaled ones in any shape."""
        return self.scaling_factor * (unscaled - self.shift_factor)

    def encode(
        self, grid: SplatGrid, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """``[B, V, C, h, w]`` scaled latents of grids ``[B, V, 12, H, W]``, height and width multiples of 8.

        They are drawn from the posterior by the generator, or its mode unless ``sample``.
        """
        posterior = self.posterior(grid)
        latents = posterior.sample(generator) if sample else posterior.mode()
        return self.scale(latents).unflatten(0, (-1, grid.views))

    def reconstruct(self, latents: Tensor, *, decoder: DecoderKind = "full") -> Tensor:
        """Decode scaled latents ``[B, V, C, h, w]`` of any number of views without clamping.

        The tiny decoder is the small network that the rendering loss of denoisers runs through.

        Returns:
            ``[B, V, 12, H, W]`` float32 grid values that may leave [-1, 1] a little.

        Raises:
            ValueError: for another number of channels, or a tiny decoder that is not there.
        """
        if latents.ndim != 5 or latents.shape[2] != self.latent_channels:
            raise InvalidInputError(
                f"latents have shape {tuple(latents.shape)}, expected [B, V, {self.latent_channels}, h, w]"
            )
        packed = latents.flatten(0, 1).to(self.vae.dtype)
        match decoder:
            case "full":
                unscaled = packed / self.scaling_factor + self.shift_factor
                images = self.vae.decode(cast(FloatTensor, unscaled), return_dict=False)[0]
            case "tiny":
                images = self._decode_tiny(packed)
        return images.unflatten(0, latents.shape[:2]).float()

    def decode(self, latents: Tensor, *, decoder: DecoderKind = "full") -> SplatGrid:
        """Grids ``[B, V, 12, H, W]`` of scaled latents ``[B, V, C, h, w]``; arguments of :meth:`reconstruct`."""
        return SplatGrid(self.reconstruct(latents, decoder=decoder).clamp(-1, 1))

    def _decode_tiny(self, packed: Tensor) -> Tensor:
        """Decode with the tiny network, which was trained on *scaled* latents behind the post-quant convolution."""
        if self.tiny_decoder is None:
            raise InvalidInputError("this autoencoder has no tiny decoder, expected decoder='full'")
        if self.vae.post_quant_conv is not None:
            packed = self.vae.post_quant_conv(packed)
        return self.tiny_decoder(packed)


def _arguments(image_vae: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``AutoencoderKL`` with splat channels and a block type for every width."""
    stages = len(image_vae["block_out_channels"])
    return {
        **image_vae,
        "in_channels": GRID_CHANNELS,
        "out_channels": GRID_CHANNELS,
        "down_block_types": ("DownEncoderBlock2D",) * stages,
        "up_block_types": ("UpDecoderBlock2D",) * stages,
    }


def _tiny_decoder(channels: int, widths: Sequence[int], blocks: Sequence[int]) -> DecoderTiny | None:
    if not widths:
        return None
    if len(widths) != len(blocks):
        raise InvalidInputError(f"the tiny decoder has {len(widths)} widths but {len(blocks)} block counts")
    return DecoderTiny(
        in_channels=channels,
        out_channels=GRID_CHANNELS,
        num_blocks=tuple(blocks),
        block_out_channels=tuple(widths),
        upsampling_scaling_factor=2,
        act_fn="relu",
        upsample_fn="nearest",
    )
