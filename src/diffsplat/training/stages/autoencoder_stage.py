"""Training of the splat autoencoder and of its tiny decoder on the grids of a frozen reconstructor."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
import tyro
from torch import Tensor

from diffsplat.core import PixelGrid, Rendering, SplatGrid, Views
from diffsplat.errors import require
from diffsplat.evaluation.held_out_view_evaluation import INPUT_VIEWS
from diffsplat.evaluation.image_metrics import psnr
from diffsplat.models.denoiser_families import Variant
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.pretrained.network_folders import open_autoencoder, open_image_encoder, open_reconstructor
from diffsplat.render import Backend
from diffsplat.training.network_initialisation import add_tiny_decoder, splat_vae_from_image_vae
from diffsplat.training.released_layout_export import VARIANT_BACKBONES, Release
from diffsplat.training.rendered_view_loss import ObjectLosses, RenderedViewLoss, RenderingLossOptions
from diffsplat.training.run_folders import Need, StageFolders
from diffsplat.training.stages.stage_interface import Losses, Report, Stage, StageConfig
from diffsplat.training.stages.stage_reports import report_rendering
from diffsplat.training.view_encoder import require_same_pixel_grid

if TYPE_CHECKING:
    from diffsplat.models.splat_vae import DecoderKind, SplatVAE


@dataclass(frozen=True)
class AutoencoderConfig(StageConfig):
    """A splat autoencoder that starts from an image autoencoder, and its loss.

    Args:
        image_size: edge of the grids in pixels.
        grid_weight: of the squared error of the grid.
        rendering_weight: of the rendering loss.
        rendering: that loss.
        variant: family of the 2D diffusion model whose latent space is shared; none for the small image autoencoder of
            a run.
    """

    image_size: int = 256
    grid_weight: float = 1.0
    rendering_weight: float = 1.0
    rendering: Annotated[RenderingLossOptions, tyro.conf.arg(name="")] = field(
        default_factory=RenderingLossOptions
    )
    variant: Variant | None = "sd"
    decoder: ClassVar[Literal["full", "tiny"]] = "full"

    @property
    def needs(self) -> tuple[Need, ...]:
        """Trained networks that it is made from."""
        return ("reconstructor",) if self.variant else ("reconstructor", "image_autoencoder")

    @property
    def release(self) -> Release | None:
        """Place among the released weights."""
        return Release.of_autoencoder(self.variant) if self.variant else None

    def network(self, folders: StageFolders, pixel_grid: PixelGrid, /) -> "SplatVAE":
        """The image autoencoder with repeated inputs and outputs."""
        if self.variant:
            folder = folders.pretrained_part(*VARIANT_BACKBONES[self.variant].trained_autoencoder)
        else:
            folder = folders.trained("image_autoencoder")
        image_vae = open_image_encoder(folder).float()
        return splat_vae_from_image_vae(image_vae, image_size=self.image_size, pixel_grid=pixel_grid)

    def network_size(self, _folders: StageFolders, /) -> int:
        """Pixels per side of the images."""
        return self.image_size

    def build(self, folders: StageFolders, /) -> "SplatVaeStage":
        """The stage.

        Raises:
            ValueError: when the networks that it is made from are of other images.
        """
        reconstructor = open_reconstructor(folders.trained("reconstructor"))
        autoencoder = self.network(folders, reconstructor.pixel_grid)
        sizes = {"reconstructor": reconstructor.image_size, "autoencoder": autoencoder.image_size}
        for name, size in sizes.items():
            same = size in (None, self.image_size)
            require(same, f"the image size of the {name}", size, f"the {self.image_size} of image_size")
        require_same_pixel_grid(reconstructor, autoencoder)
        return SplatVaeStage(self, reconstructor, autoencoder)


@dataclass(frozen=True)
class TinyDecoderConfig(AutoencoderConfig):
    """The tiny decoder of a trained splat autoencoder, from a distilled autoencoder of the 2D model (TAESD)."""

    variant: Variant = "sd"
    decoder = "tiny"

    @property
    def needs(self) -> tuple[Need, ...]:
        """Trained networks that it is made from."""
        return ("reconstructor", "autoencoder")

    def network(self, folders: StageFolders, _pixel_grid: PixelGrid, /) -> "SplatVAE":
        """The trained autoencoder with the distilled decoder, its last convolution repeated."""
        from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

        folder = folders.pretrained_part(VARIANT_BACKBONES[self.variant].tiny_autoencoder)
        tiny: Any = AutoencoderTiny.from_pretrained(folder)
        autoencoder = open_autoencoder(folders.trained("autoencoder"), variant=self.variant)
        kind = type(autoencoder).__name__
        require(kind == "SplatVAE", "the autoencoder", f"a {kind}", "a SplatVAE")
        return add_tiny_decoder(autoencoder, tiny)


@dataclass(frozen=True)
class SplatVaeLoss:
    """Weighted sum of the squared error of a grid and of the loss of its renderings.

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
    decoder: "DecoderKind" = "full"
    backend: Backend = "auto"

    def __call__(
        self, autoencoder: "SplatVAE", latents: Tensor, grid: SplatGrid, views: Views, step: int = 1
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


class SplatVaeStage(Stage["SplatVAE"]):
    """Squared error of grids and of their renderings through latents drawn from the posterior.

    As in the paper's runs, the divergence of the posterior from a Gaussian has no part in the loss (section 3.2 of
    DiffSplat, ICLR 2025); it is logged.
    """

    def __init__(self, config: AutoencoderConfig, reconstructor: GSRecon, autoencoder: "SplatVAE") -> None:
        super().__init__()
        self.decoder: DecoderKind = config.decoder
        self.released = config.release is not None
        self.reconstructor = reconstructor.eval().requires_grad_(False)
        self.network = autoencoder
        train_only(autoencoder, config.decoder)
        rendering = config.rendering.rendering_loss(reconstructor.pixel_grid)
        self.perceptual = rendering.perceptual
        self.loss = SplatVaeLoss(rendering, config.grid_weight, config.rendering_weight, config.decoder)

    def forward(self, batch: Views, step: int, /) -> Losses:
        """Loss of the grids of the first four views, rendered in all of them."""
        grid = self._grid(batch)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.decoder == "full"):
            posterior = self.network.posterior(grid)
            latents = self.network.scale(posterior.sample()).unflatten(0, (-1, grid.views))
        losses = self.loss(self.network, latents, grid, batch, step)
        # Of every view, per number of its latents.
        divergence = posterior.kl().detach().float().mean() / latents[0, 0].numel()
        return Losses.mean(losses, kl=divergence)

    @torch.no_grad()
    def evaluate(self, batch: Views) -> Report:
        """PSNR of renderings through the autoencoder and without it, and an image of truth over rendering."""
        grid = self._grid(batch)
        latents = self.network.encode(grid)
        decoded = self.network.decode(latents, decoder=self.decoder)
        report = report_rendering(self._render(decoded, batch), batch, self.perceptual)
        without = psnr(self._render(grid, batch).rgb, batch.image)[:, INPUT_VIEWS:]
        figures = {
            "grid": float((decoded.values - grid.values).square().mean()),
            "psnr_novel_reconstructor": float(without.mean()),
            "latent_deviation": float(latents.float().std()),
        }
        return Report(report.scalars | figures, report.images)

    def _grid(self, batch: Views) -> SplatGrid:
        with torch.no_grad():
            return self.reconstructor(batch.take(slice(0, INPUT_VIEWS)))

    def _render(self, grid: SplatGrid, batch: Views) -> Rendering:
        return self.loss.rendering.render(grid, batch, self.network.pixel_grid)


def train_only(autoencoder: "SplatVAE", decoder: "DecoderKind") -> None:
    """Freeze what one decoder's training leaves alone: nothing but the other decoder, or all but the tiny one.

    For the tiny decoder the latents then carry no gradient, but are still drawn from the posterior.
    """
    autoencoder.vae.requires_grad_(decoder == "full")
    if autoencoder.tiny_decoder is not None:
        autoencoder.tiny_decoder.requires_grad_(decoder == "tiny")
