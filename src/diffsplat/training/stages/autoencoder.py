"""Training of the splat autoencoder on the grids of a frozen reconstructor."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffsplat.core import SplatGrid, Views
from diffsplat.models import GSAutoencoder, GSRecon
from diffsplat.render import render
from diffsplat.training.config import Place
from diffsplat.training.losses import grid_loss, rendering_loss
from diffsplat.training.stages.base import Losses, Report, Stage
from diffsplat.training.stages.export import save_half
from diffsplat.training.stages.pictures import INPUT_VIEWS, report_rendering


@dataclass(frozen=True)
class AutoencoderConfig:
    """The autoencoder and the weights of its loss.

    Args:
        reconstructor: folder with the trained reconstructor.
        patch, latent_channels, dim, encoder_blocks, decoder_blocks, refiner_channels: as of
            :class:`~diffsplat.models.gsvae.GSAutoencoder`.
        divergence_weight: of the Kullback-Leibler divergence, averaged over latents.
        rendering_weight: of the rendering loss.
        rendered_objects: how many objects of a batch are rendered; the others have the grid loss alone.
        statistics_momentum: share of the old value when mean and deviation of the latents are tracked.
    """

    reconstructor: Place = Path("reconstructor")
    patch: int = 16
    latent_channels: int = 64
    dim: int = 256
    encoder_blocks: int = 2
    decoder_blocks: int = 5
    refiner_channels: int = 64
    divergence_weight: float = 2e-4
    rendering_weight: float = 5.0
    rendered_objects: int = 1
    statistics_momentum: float = 0.98


class AutoencoderStage(Stage):
    """Grid loss, rendering loss and a little divergence (DiffSplat, ICLR 2025, section 3.2)."""

    def __init__(self, config: AutoencoderConfig, image_size: int = 128) -> None:
        super().__init__()
        self.config = config
        self.reconstructor = GSRecon.from_pretrained(
            config.reconstructor, torch_dtype=torch.float32, low_cpu_mem_usage=False
        ).requires_grad_(False)
        self.autoencoder = GSAutoencoder(
            image_size=image_size,
            views=INPUT_VIEWS,
            patch=config.patch,
            latent_channels=config.latent_channels,
            dim=config.dim,
            encoder_blocks=config.encoder_blocks,
            decoder_blocks=config.decoder_blocks,
            refiner_channels=config.refiner_channels,
        )

    def trainable(self) -> GSAutoencoder:
        """The autoencoder."""
        return self.autoencoder

    def forward(self, batch: Views) -> Losses:
        """Loss of one batch; the first four of the views are the inputs."""
        grid = self._grid(batch)
        latents = self.autoencoder.distribution(grid)
        self._track(latents.mean.detach())
        values = self.autoencoder.reconstruct(latents.sample())
        total, parts = grid_loss(values, grid.values)
        divergence = latents.divergence()
        total = total + self.config.divergence_weight * divergence
        parts["divergence"] = divergence.detach()
        if self.config.rendered_objects:
            objects = slice(0, self.config.rendered_objects)
            some = batch.objects(objects)
            splats = SplatGrid(values[objects].clamp(-1, 1)).to_splats(
                some.take(slice(0, INPUT_VIEWS)).cameras
            )
            rendered, rendered_parts = rendering_loss(render(splats, some.cameras, normals=False), some)
            total = total + self.config.rendering_weight * rendered
            parts |= rendered_parts
        return Losses(total, parts)

    @torch.no_grad()
    def evaluate(self, batch: Views) -> Report:
        """PSNR after encoding and decoding, and a picture of truth over rendering."""
        grid = self.autoencoder.decode(self.autoencoder.encode(self._grid(batch)))
        splats = grid.to_splats(batch.take(slice(0, INPUT_VIEWS)).cameras)
        return report_rendering(render(splats, batch.cameras, normals=False), batch)

    def save_pretrained(self, directory: Path) -> None:
        """Write the autoencoder."""
        save_half(self.autoencoder, directory)

    @torch.no_grad()
    def _grid(self, batch: Views) -> SplatGrid:
        return self.reconstructor(batch.take(slice(0, INPUT_VIEWS)))

    @torch.no_grad()
    def _track(self, latents: Tensor) -> None:
        """Follow mean and deviation of every latent channel, which the denoiser's latents are normalised by."""
        momentum = self.config.statistics_momentum
        channels = latents.movedim(2, 0).flatten(1)
        model = self.autoencoder
        mean = torch.lerp(channels.mean(dim=1), model.latent_mean, momentum)
        std = torch.lerp(channels.std(dim=1), model.latent_std, momentum)
        model.set_statistics(mean, std)
