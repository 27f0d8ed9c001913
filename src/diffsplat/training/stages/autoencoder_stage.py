"""Training of the splat autoencoder on the grids of a trained reconstructor."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffsplat.core import Rendering, SplatGrid, Views
from diffsplat.errors import InvalidInputError
from diffsplat.models import GSAutoencoder
from diffsplat.pretrained.network_folders import save_half
from diffsplat.render import render
from diffsplat.training.grid_cache import GridBatch
from diffsplat.training.losses import grid_loss, rendering_loss
from diffsplat.training.stages.stage import Losses, Report, Stage
from diffsplat.training.stages.stage_reports import INPUT_VIEWS, report_rendering


@dataclass(frozen=True)
class AutoencoderConfig:
    """The autoencoder and the weights of its loss.

    Args:
        patch, latent_channels, latent_deviation, decoder_patch, dim, decoder_blocks: as of
            :class:`~diffsplat.models.component_autoencoder.GSAutoencoder`.
        refiner_channels: as of the same.
        component_objects: objects whose grids the principal components are computed from.
        latent_noise: latents are decoded with noise in training, whose deviation is drawn between 0 and this for
            each object, so that the decoder forgives what a denoiser leaves.
        rendering_weight: of the rendering loss.
    """

    patch: int = 8
    latent_channels: int = 192
    latent_deviation: float = 1.0
    decoder_patch: int = 2
    dim: int = 256
    decoder_blocks: int = 6
    refiner_channels: int = 0
    component_objects: int = 480
    latent_noise: float = 0.0
    rendering_weight: float = 5.0


class AutoencoderStage(Stage):
    """Grid loss and rendering loss (DiffSplat, ICLR 2025, section 3.2); the linear encoder is fitted first."""

    def __init__(self, config: AutoencoderConfig, image_size: int = 128) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = GSAutoencoder(
            image_size=image_size,
            views=INPUT_VIEWS,
            patch=config.patch,
            latent_channels=config.latent_channels,
            latent_deviation=config.latent_deviation,
            decoder_patch=config.decoder_patch,
            dim=config.dim,
            decoder_blocks=config.decoder_blocks,
            refiner_channels=config.refiner_channels,
        )

    def trainable(self) -> GSAutoencoder:
        """The autoencoder."""
        return self.autoencoder

    def forward(self, batch: GridBatch) -> Losses:
        """Loss of one batch; objects without views have the grid loss alone."""
        latents = self.autoencoder.encode(batch.grids)
        deviation = self.config.latent_noise * torch.rand_like(latents[:, :1, :1, :1, :1])
        values = self.autoencoder.reconstruct(latents + deviation * torch.randn_like(latents))
        total, parts = grid_loss(values, batch.grids.values)
        if batch.views is not None:
            rendered, rendered_parts = rendering_loss(_rendered(values, batch.views), batch.views)
            total = total + self.config.rendering_weight * rendered
            parts |= rendered_parts
        return Losses(total, parts)

    @torch.no_grad()
    def evaluate(self, batch: GridBatch) -> Report:
        """PSNR after encoding and decoding, and a picture of truth over rendering; every object has views."""
        if batch.views is None:
            raise InvalidInputError("got a batch without views to evaluate, expected views of every object")
        values = self.autoencoder.reconstruct(self.autoencoder.encode(batch.grids))
        return report_rendering(_rendered(values, batch.views), batch.views)

    def save_pretrained(self, directory: Path) -> None:
        """Write the autoencoder."""
        save_half(self.autoencoder, directory)


def _rendered(values: Tensor, views: Views) -> Rendering:
    """Grids of the objects that have views, clamped and rendered in these; the others cost nothing."""
    grids = SplatGrid(values[: views.image.shape[0]].clamp(-1, 1))
    splats = grids.to_splats(views.take(slice(0, INPUT_VIEWS)).cameras)
    return render(splats, views.cameras, normals=False)
