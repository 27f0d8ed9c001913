"""Training of the splat autoencoder on the grids of a frozen reconstructor."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from diffsplat.core import SplatGrid, Views
from diffsplat.models import GSAutoencoder, GSRecon
from diffsplat.models.weights import load_network, save_half
from diffsplat.render import render
from diffsplat.training.config import Place
from diffsplat.training.losses import grid_loss, rendering_loss
from diffsplat.training.stages.base import Losses, Report, Stage
from diffsplat.training.stages.pictures import INPUT_VIEWS, report_rendering


@dataclass(frozen=True)
class AutoencoderConfig:
    """The autoencoder and the weights of its loss.

    Args:
        reconstructor: folder with the trained reconstructor.
        patch, latent_channels, dim, decoder_blocks, refiner_channels: as of
            :class:`~diffsplat.models.gsvae.GSAutoencoder`.
        component_objects: objects whose grids the principal components are computed from.
        latent_noise: latents are decoded with noise in training, whose deviation is drawn between 0 and this for
            each object, so that the decoder forgives what a denoiser leaves.
        rendering_weight: of the rendering loss.
        rendered_objects: how many objects of a batch are rendered; the others have the grid loss alone.
    """

    reconstructor: Place = Path("reconstructor")
    patch: int = 16
    latent_channels: int = 64
    dim: int = 256
    decoder_blocks: int = 6
    refiner_channels: int = 64
    component_objects: int = 480
    latent_noise: float = 0.3
    rendering_weight: float = 5.0
    rendered_objects: int = 1


class AutoencoderStage(Stage):
    """Grid loss and rendering loss (DiffSplat, ICLR 2025, section 3.2); the linear encoder is fitted first."""

    def __init__(self, config: AutoencoderConfig, image_size: int = 128) -> None:
        super().__init__()
        self.config = config
        self.reconstructor = load_network(GSRecon, config.reconstructor).requires_grad_(False)
        self.autoencoder = GSAutoencoder(
            image_size=image_size,
            views=INPUT_VIEWS,
            patch=config.patch,
            latent_channels=config.latent_channels,
            dim=config.dim,
            decoder_blocks=config.decoder_blocks,
            refiner_channels=config.refiner_channels,
        )

    def fit_components(self, batches: Iterable[Views]) -> None:
        """Fit the encoder to the grids of some batches."""
        self.autoencoder.fit_components(self._grid(batch) for batch in batches)

    def trainable(self) -> GSAutoencoder:
        """The autoencoder."""
        return self.autoencoder

    def forward(self, batch: Views) -> Losses:
        """Loss of one batch; the first four of the views are the inputs."""
        grid = self._grid(batch)
        latents = self.autoencoder.encode(grid)
        deviation = self.config.latent_noise * torch.rand_like(latents[:, :1, :1, :1, :1])
        noisy = latents + deviation * torch.randn_like(latents)
        values = self.autoencoder.reconstruct(noisy)
        total, parts = grid_loss(values, grid.values)
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
