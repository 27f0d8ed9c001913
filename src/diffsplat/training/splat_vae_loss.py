"""Losses of the splat autoencoder and its tiny decoder: the grid's squared error and that of its renderings."""

from dataclasses import dataclass

from torch import Tensor

from diffsplat.core import SplatGrid, Views
from diffsplat.models.splat_vae import DecoderKind, SplatVAE
from diffsplat.render import Backend
from diffsplat.training.rendered_view_loss import ObjectLosses, RenderedViewLoss


@dataclass(frozen=True)
class SplatVaeLoss:
    """Weighted sum of both; the divergence of the posterior from a Gaussian is not part of it (it only is logged).

    Args:
        rendering: loss of the renderings.
        grid_weight: of the grid's mean squared error.
        rendering_weight: of the rendering loss.
        decoder: the decoder in use.
        backend: rasterizer.
    """

    rendering: RenderedViewLoss
    grid_weight: float = 1.0
    rendering_weight: float = 1.0
    decoder: DecoderKind = "full"
    backend: Backend = "auto"

    def __call__(
        self, autoencoder: SplatVAE, latents: Tensor, grid: SplatGrid, views: Views, step: int = 1
    ) -> ObjectLosses:
        """Losses of ``B`` objects.

        Args:
            autoencoder: decodes.
            latents: ``[B, V, C, h, w]`` scaled latents, drawn from the posterior of the grid.
            grid: ``[B, V, 12, H, W]`` of the frozen reconstructor.
            views: ``[B, V' >= V]``, whose first ``V`` are those of the grid.
            step: of the training, counted from 1.
        """
        decoded = autoencoder.decode(latents, decoder=self.decoder)
        error = (decoded.values - grid.values).square().flatten(1).mean(dim=1)
        images = self.rendering.render(decoded, views, autoencoder.pixel_grid, self.backend)
        rendered = self.rendering(images, views, step)
        total = self.grid_weight * error + self.rendering_weight * rendered.total
        return ObjectLosses(total, {"grid": error.detach(), **rendered.terms})


def train_only(autoencoder: SplatVAE, decoder: DecoderKind) -> None:
    """Freeze what one decoder's training leaves alone: nothing but the other decoder, or all but the tiny one.

    For the tiny decoder the latents then carry no gradient, but are still drawn from the posterior.
    """
    autoencoder.vae.requires_grad_(decoder == "full")
    if autoencoder.tiny_decoder is not None:
        autoencoder.tiny_decoder.requires_grad_(decoder == "tiny")
