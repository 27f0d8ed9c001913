"""Training of the splat autoencoder on the grids of a trained reconstructor."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffsplat.core import Rendering, SplatGrid, Views
from diffsplat.errors import InvalidInputError
from diffsplat.models import ComponentAutoencoder
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
        patch, latent_channels, latent_deviation: as of
            :class:`~diffsplat.models.component_autoencoder.ComponentAutoencoder`.
        component_objects: objects whose grids the principal components are computed from.
        rendering_weight: of the rendering loss.
    """

    patch: int = 8
    latent_channels: int = 192
    latent_deviation: float = 1.0
    component_objects: int = 480
    rendering_weight: float = 5.0


class AutoencoderStage(Stage):
    """Grid loss and rendering loss (DiffSplat, ICLR 2025, section 3.2); the linear encoder is fitted first."""

    def __init__(self, config: AutoencoderConfig, image_size: int = 128) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = ComponentAutoencoder(
            image_size=image_size,
            views=INPUT_VIEWS,
            patch=config.patch,
            latent_channels=config.latent_channels,
            latent_deviation=config.latent_deviation,
        )

    def trainable(self) -> ComponentAutoencoder:
        """The autoencoder."""
        return self.autoencoder

    def forward(self, batch: GridBatch) -> Losses:
        """Loss of one batch; objects without views have the grid loss alone."""
        values = self.autoencoder.decode(self.autoencoder.encode(batch.grids)).values
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
        values = self.autoencoder.decode(self.autoencoder.encode(batch.grids)).values
        return report_rendering(_rendered(values, batch.views), batch.views)

    def save_pretrained(self, directory: Path) -> None:
        """Write the autoencoder."""
        save_half(self.autoencoder, directory)


def _rendered(values: Tensor, views: Views) -> Rendering:
    """Grids of the objects that have views, clamped and rendered in these; the others cost nothing."""
    grids = SplatGrid(values[: views.image.shape[0]].clamp(-1, 1))
    splats = grids.to_splats(views.take(slice(0, INPUT_VIEWS)).cameras)
    return render(splats, views.cameras, normals=False)
