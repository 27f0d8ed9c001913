"""Training of the splat autoencoder and of its tiny decoder on the grids of a frozen reconstructor."""

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, cast

import torch
import tyro
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import Tensor

from diffsplat.core import PixelGrid, Rendering, SplatGrid, Views
from diffsplat.evaluation.image_metrics import psnr
from diffsplat.evaluation.model_evaluation import INPUT_VIEWS
from diffsplat.evaluation.perceptual_distance import VggDistance
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.models.splat_vae import DecoderKind, SplatVAE, Variant
from diffsplat.training.config_checks import require
from diffsplat.training.network_initialisation import add_tiny_decoder, splat_vae_from_image_vae
from diffsplat.training.release_folder import VARIANT_BACKBONES, Release
from diffsplat.training.run_folders import Need, StageFolders
from diffsplat.training.splat_vae_loss import SplatVaeLoss, train_only
from diffsplat.training.stages.rendering_loss_options import RenderingLossOptions
from diffsplat.training.stages.stage import Losses, Report, Stage, StageConfig
from diffsplat.training.stages.stage_reports import report_rendering
from diffsplat.training.stages.weight_files import WeightFiles, save_network
from diffsplat.training.trained_networks import open_autoencoder, open_reconstructor, require_same_pixel_grid

Flat = tyro.conf.arg(name="")


@dataclass(frozen=True)
class SplatVaeConfig(StageConfig):
    """A splat autoencoder and its loss.

    Args:
        image_size: edge of the grids in pixels.
        grid_weight: of the squared error of the grid.
        rendering_weight: of the rendering loss.
        rendering: that loss.
        files: how the weights are written.
    """

    image_size: int = 256
    grid_weight: float = 1.0
    rendering_weight: float = 1.0
    rendering: Annotated[RenderingLossOptions, Flat] = field(default_factory=RenderingLossOptions)
    files: WeightFiles = "release"

    @property
    def decoder(self) -> DecoderKind:
        """The decoder that is trained."""
        return "full"

    @abstractmethod
    def network(self, folders: StageFolders, pixel_grid: PixelGrid, /) -> SplatVAE:
        """The autoencoder before training."""

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
class AutoencoderConfig(SplatVaeConfig):
    """A splat autoencoder that starts from the autoencoder of a 2D diffusion model.

    Args:
        variant: family of the 2D diffusion model, whose latent space is shared.
    """

    variant: Variant = "sd"

    @property
    def release(self) -> Release:
        """Place among the released weights."""
        return Release.of_autoencoder(self.variant)

    @property
    def needs(self) -> tuple[Need, ...]:
        """Trained networks that it is made from."""
        return ("reconstructor",)

    def network(self, folders: StageFolders, pixel_grid: PixelGrid, /) -> SplatVAE:
        """The image autoencoder with repeated inputs and outputs."""
        image_vae = AutoencoderKL.from_pretrained(
            folders.pretrained_part(*VARIANT_BACKBONES[self.variant].trained_autoencoder)
        )
        return splat_vae_from_image_vae(
            cast(AutoencoderKL, image_vae), image_size=self.image_size, pixel_grid=pixel_grid
        )


@dataclass(frozen=True)
class TinyDecoderConfig(SplatVaeConfig):
    """The tiny decoder of a trained splat autoencoder, from a distilled autoencoder (TAESD) of the 2D diffusion model.

    Args:
        variant: family of the 2D diffusion model.
    """

    variant: Variant = "sd"

    @property
    def release(self) -> Release:
        """Place among the released weights."""
        return Release.of_autoencoder(self.variant)

    @property
    def needs(self) -> tuple[Need, ...]:
        """Trained networks that it is made from."""
        return ("reconstructor", "autoencoder")

    @property
    def decoder(self) -> DecoderKind:
        """The decoder that is trained."""
        return "tiny"

    def network(self, folders: StageFolders, _pixel_grid: PixelGrid, /) -> SplatVAE:
        """The trained autoencoder with the distilled decoder, its last convolution repeated."""
        tiny = AutoencoderTiny.from_pretrained(
            folders.pretrained_part(VARIANT_BACKBONES[self.variant].tiny_autoencoder)
        )
        autoencoder = open_autoencoder(folders.trained("autoencoder"), self.variant)
        kind = type(autoencoder).__name__
        require(isinstance(autoencoder, SplatVAE), "the autoencoder", f"a {kind}", "a SplatVAE")
        return add_tiny_decoder(cast(SplatVAE, autoencoder), cast(AutoencoderTiny, tiny))


@dataclass(frozen=True)
class SmallAutoencoderConfig(SplatVaeConfig):
    """A splat autoencoder that starts from a trained small image autoencoder."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """Trained networks that it is made from."""
        return ("reconstructor", "image_autoencoder")

    def network(self, folders: StageFolders, pixel_grid: PixelGrid, /) -> SplatVAE:
        """The image autoencoder with repeated inputs and outputs."""
        image_vae = cast(AutoencoderKL, AutoencoderKL.from_pretrained(folders.trained("image_autoencoder")))
        return splat_vae_from_image_vae(image_vae, image_size=self.image_size, pixel_grid=pixel_grid)


class SplatVaeStage(Stage):
    """Squared error of grids and of their renderings through latents drawn from the posterior.

    As in the paper's runs, the divergence of the posterior from a Gaussian has no part in the loss (section 3.2 of
    DiffSplat, ICLR 2025); it is logged.
    """

    def __init__(self, config: SplatVaeConfig, reconstructor: GSRecon, autoencoder: SplatVAE) -> None:
        super().__init__()
        self.config = config
        self.reconstructor = reconstructor.eval().requires_grad_(False)
        self.autoencoder = autoencoder
        train_only(autoencoder, config.decoder)
        rendering = config.rendering.rendering_loss(reconstructor.pixel_grid)
        self.perceptual = rendering.perceptual if isinstance(rendering.perceptual, VggDistance) else None
        self.loss = SplatVaeLoss(rendering, config.grid_weight, config.rendering_weight, config.decoder)

    def trainable(self) -> SplatVAE:
        """The autoencoder; what is not trained is frozen."""
        return self.autoencoder

    def forward(self, batch: Views, step: int, /) -> Losses:
        """Loss of the grids of the first four views, rendered in all of them."""
        grid = self._grid(batch)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.decoder == "full"):
            posterior = self.autoencoder.posterior(grid)
            latents = self.autoencoder.scale(posterior.sample()).unflatten(0, (-1, grid.views))
        losses = self.loss(self.autoencoder, latents, grid, batch, step)
        terms = {name: term.mean() for name, term in losses.terms.items()}
        return Losses(losses.total.mean(), {**terms, "kl": _per_number(posterior.kl(), latents)})

    @torch.no_grad()
    def evaluate(self, batch: Views) -> Report:
        """PSNR of renderings through the autoencoder and without it, and an image of truth over rendering."""
        grid = self._grid(batch)
        latents = self.autoencoder.encode(grid)
        decoded = self.autoencoder.decode(latents, decoder=self.config.decoder)
        report = report_rendering(self._render(decoded, batch), batch, self.perceptual)
        without = psnr(self._render(grid, batch).rgb, batch.image)[:, INPUT_VIEWS:]
        figures = {
            "grid": float((decoded.values - grid.values).square().mean()),
            "psnr_novel_reconstructor": float(without.mean()),
            "latent_deviation": float(latents.float().std()),
        }
        return Report(report.scalars | figures, report.images)

    def save_pretrained(self, directory: Path, _step: int, /) -> None:
        """Write the autoencoder with all its decoders."""
        save_network(self.autoencoder, directory, self.config.files)

    def _grid(self, batch: Views) -> SplatGrid:
        with torch.no_grad():
            return self.reconstructor(batch.take(slice(0, INPUT_VIEWS)))

    def _render(self, grid: SplatGrid, batch: Views) -> Rendering:
        return self.loss.rendering.render(grid, batch, self.autoencoder.pixel_grid)


def _per_number(divergence: Tensor, latents: Tensor) -> Tensor:
    """Mean of the divergences of views, per number of their latents ``[B, V, C, h, w]``."""
    return divergence.detach().float().mean() / latents[0, 0].numel()
