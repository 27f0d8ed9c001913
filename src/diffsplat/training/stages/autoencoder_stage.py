"""Training of the splat autoencoder and of its tiny decoder on the grids of a frozen reconstructor."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
import tyro
from torch import Tensor

from diffsplat.core import PixelGrid, Rendering, SplatGrid, Views
from diffsplat.core.splat_grid import OPACITY, unit_range
from diffsplat.errors import require, require_at_least
from diffsplat.evaluation.held_out_view_evaluation import INPUT_VIEWS
from diffsplat.evaluation.image_metrics import psnr
from diffsplat.models.denoiser_families import Variant
from diffsplat.models.principal_component_autoencoder import channel_gains
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.pretrained.network_folders import open_autoencoder, open_image_encoder, open_reconstructor
from diffsplat.render import Backend
from diffsplat.training.network_initialisation import (
    add_tiny_decoder,
    pass_input_on,
    splat_vae_from_image_vae,
)
from diffsplat.training.released_layout_export import VARIANT_BACKBONES, Release
from diffsplat.training.rendered_view_loss import ObjectLosses, RenderedViewLoss, RenderingLossOptions
from diffsplat.training.run_folders import Need, StageFolders
from diffsplat.training.stages.image_autoencoder_stage import SmallAutoencoderSizes, random_crops
from diffsplat.training.stages.stage_interface import Losses, Report, Stage, StageConfig
from diffsplat.training.stages.stage_reports import report_rendering
from diffsplat.training.view_encoder import require_same_pixel_grid

if TYPE_CHECKING:
    from diffsplat.models.splat_vae import DecoderKind, SplatVAE


GridError = Literal["equal", "visible"]
"""How much the channels of a grid count: the same, or as much as a rendering shows of them."""

_LEAST_VISIBLE = 0.02
"""Weight of the errors of a Gaussian that cannot be seen."""


@dataclass(frozen=True)
class AutoencoderConfig(StageConfig):
    """A splat autoencoder and its loss.

    Args:
        image_size: edge of the grids in pixels.
        grid_weight: of the squared error of the grid.
        grid_error: how much its channels count.
        kl_weight: of the divergence of the latents from a unit Gaussian per latent number.
        rendering_weight: of the rendering loss.
        rendering_from: step from which grids are rendered, counted from 1.
        crop: edge in pixels of the random squares of the grids that come before they are rendered; 0 for whole grids.
        rendering: the rendering loss.
    """

    image_size: int = 256
    grid_weight: float = 1.0
    grid_error: GridError = "equal"
    kl_weight: float = 0.0
    rendering_weight: float = 1.0
    rendering_from: int = 1
    crop: int = 0
    rendering: Annotated[RenderingLossOptions, tyro.conf.arg(name="")] = field(
        default_factory=RenderingLossOptions
    )
    decoder: ClassVar[Literal["full", "tiny"]] = "full"

    def __post_init__(self) -> None:
        require_at_least(1, self, "image_size", "rendering_from")
        require_at_least(0, self, "grid_weight", "kl_weight", "rendering_weight", "crop")

    @property
    def needs(self) -> tuple[Need, ...]:
        """Trained networks that it is made from."""
        return ("reconstructor",)

    @abstractmethod
    def network(self, folders: StageFolders, pixel_grid: PixelGrid, /) -> "SplatVAE":
        """The autoencoder before its training."""

    def network_size(self, _folders: StageFolders, /) -> int:
        """Pixels per side of the images."""
        return self.image_size

    def loss(self, pixel_grid: PixelGrid) -> "SplatVaeLoss":
        """The loss of its training."""
        return SplatVaeLoss(
            self.rendering.rendering_loss(pixel_grid),
            self.grid_weight,
            self.rendering_weight,
            self.decoder,
            grid_error=self.grid_error,
            rendering_from=self.rendering_from,
        )

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
class SmallAutoencoderConfig(SmallAutoencoderSizes, AutoencoderConfig):
    """A small splat autoencoder that starts by itself.

    From a small image autoencoder it would learn more slowly: what repeats the weights of three colours over
    twelve channels passes on three sums of them at first.
    """

    def __post_init__(self) -> None:
        SmallAutoencoderSizes.__post_init__(self)
        AutoencoderConfig.__post_init__(self)

    def network(self, _folders: StageFolders, pixel_grid: PixelGrid, /) -> "SplatVAE":
        """An autoencoder whose convolutions pass their input on at first."""
        from diffsplat.models.splat_vae import SplatVAE

        sizes = {**self.arguments, "scaling_factor": 1.0}
        autoencoder = SplatVAE(sizes, (), (), self.image_size, INPUT_VIEWS, pixel_grid)
        pass_input_on(autoencoder.vae)
        return autoencoder


@dataclass(frozen=True)
class ReleasedAutoencoderConfig(AutoencoderConfig):
    """A splat autoencoder that starts from the image autoencoder of a 2D diffusion model.

    Args:
        variant: family of the 2D diffusion model whose latent space is shared.
    """

    variant: Variant = "sd"

    @property
    def release(self) -> Release:
        """Place among the released weights."""
        return Release.of_autoencoder(self.variant)

    @property
    def pretrained(self) -> str | None:
        """Repository of the image autoencoder."""
        return VARIANT_BACKBONES[self.variant].trained_autoencoder[0]

    def network(self, folders: StageFolders, pixel_grid: PixelGrid, /) -> "SplatVAE":
        """The image autoencoder with repeated inputs and outputs."""
        folder = folders.pretrained_part(*VARIANT_BACKBONES[self.variant].trained_autoencoder)
        image_vae = open_image_encoder(folder).float()
        return splat_vae_from_image_vae(image_vae, image_size=self.image_size, pixel_grid=pixel_grid)


@dataclass(frozen=True)
class TinyDecoderConfig(ReleasedAutoencoderConfig):
    """The tiny decoder of a trained splat autoencoder, from a distilled autoencoder of the 2D model (TAESD)."""

    decoder = "tiny"

    @property
    def needs(self) -> tuple[Need, ...]:
        """Trained networks that it is made from."""
        return ("reconstructor", "autoencoder")

    @property
    def pretrained(self) -> str | None:
        """Repository of the distilled autoencoder."""
        return VARIANT_BACKBONES[self.variant].tiny_autoencoder

    def network(self, folders: StageFolders, _pixel_grid: PixelGrid, /) -> "SplatVAE":
        """The trained autoencoder with the distilled decoder, its last convolution repeated.

        Raises:
            ValueError: the trained autoencoder is no ``SplatVAE``.
        """
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
        grid_error: how much the channels of a grid count.
        rendering_from: step from which grids are rendered, counted from 1.
    """

    rendering: RenderedViewLoss
    grid_weight: float = 1.0
    rendering_weight: float = 1.0
    decoder: "DecoderKind" = "full"
    backend: Backend = "auto"
    grid_error: GridError = "equal"
    rendering_from: int = 1

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
        values = autoencoder.reconstruct(latents, decoder=self.decoder)
        decoded = SplatGrid(values.clamp(-1, 1))
        error = self._grid_error(values, decoded, grid)
        if step < self.rendering_from:
            return ObjectLosses(self.grid_weight * error, {"grid": error.detach()})
        images = self.rendering.render(decoded, views, autoencoder.pixel_grid, self.backend)
        rendered = self.rendering(images, views, step)
        total = self.grid_weight * error + self.rendering_weight * rendered.total
        return ObjectLosses(total, {"grid": error.detach(), **rendered.terms})

    def _grid_error(self, values: Tensor, decoded: SplatGrid, grid: SplatGrid) -> Tensor:
        """``[B]`` mean squared error, of what is decoded before or after it is clamped."""
        match self.grid_error:
            case "equal":
                error = (decoded.values - grid.values).square()
            case "visible":
                error = (values - grid.values).square() * visibility(grid)
        return error.flatten(1).mean(dim=1)


def visibility(grid: SplatGrid) -> Tensor:
    """``[B, V, 12, H, W]`` weights of the squared error of a grid's values: what renderings show of them.

    Channels count as in :data:`~diffsplat.models.principal_component_autoencoder.CHANNEL_WEIGHTS`, with a mean of 1,
    and all but the opacity as much as the Gaussian is opaque.
    """
    gains = channel_gains(grid.values).square()
    shown = unit_range(grid.values[:, :, OPACITY]).clamp_min(_LEAST_VISIBLE).expand_as(grid.values).clone()
    shown[:, :, OPACITY] = 1
    return shown * (gains / gains.mean())


class SplatVaeStage(Stage["SplatVAE"]):
    """Squared error of grids and of their renderings through latents drawn from the posterior.

    In the paper's runs the divergence of the posterior from a Gaussian has no part in the loss (section 3.2 of
    DiffSplat, ICLR 2025); it is always logged.
    """

    def __init__(self, config: AutoencoderConfig, reconstructor: GSRecon, autoencoder: "SplatVAE") -> None:
        super().__init__()
        self.decoder: DecoderKind = config.decoder
        self.released = config.release is not None
        self.reconstructor = reconstructor.eval().requires_grad_(False)
        self.network = autoencoder
        train_only(autoencoder, config.decoder)
        self.loss = config.loss(reconstructor.pixel_grid)
        self.perceptual = self.loss.rendering.perceptual
        self.kl_weight, self.crop = config.kl_weight, config.crop

    def forward(self, batch: Views, step: int, /) -> Losses:
        """Loss of the grids of the first four views, rendered in all of them."""
        grid = self._grid(batch)
        if self.crop and step < self.loss.rendering_from:
            grid = SplatGrid.unpack(random_crops(grid.pack(), self.crop), grid.views)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.decoder == "full"):
            posterior = self.network.posterior(grid)
            latents = self.network.scale(posterior.sample()).unflatten(0, (-1, grid.views))
        losses = Losses.mean(self.loss(self.network, latents, grid, batch, step))
        # Of every view, per number of its latents.
        divergence = posterior.kl().float().mean() / latents[0, 0].numel()
        return Losses(losses.total + self.kl_weight * divergence, {**losses.parts, "kl": divergence.detach()})

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
