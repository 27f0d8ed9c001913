"""Training of denoisers and ControlNets on the latents of posed views."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import torch
import tyro
from torch import Tensor, nn

from diffsplat.core import Rendering, SplatGrid, Splats, Views
from diffsplat.core.without_autocast import without_autocast
from diffsplat.errors import require, require_at_least
from diffsplat.evaluation.control_agreement import control_agreement, control_images
from diffsplat.evaluation.image_metrics import psnr
from diffsplat.evaluation.perceptual_distance import VggDistance
from diffsplat.io.image_files import tile_images
from diffsplat.models.condition_encoder import ConditionEncoder
from diffsplat.models.multiview_attention import set_multiview_attention
from diffsplat.models.rays_and_noise_levels import denoised_channels, denoiser_rays
from diffsplat.pipelines.denoising_loop import denoise
from diffsplat.pipelines.guidance import (
    Conditions,
    GuidedDenoiser,
    attended_views,
    constant_guidance,
    triangle_guidance,
)
from diffsplat.pipelines.image_and_control_conditions import control_views, image_latents
from diffsplat.pipelines.pipeline_interfaces import Denoiser
from diffsplat.pretrained.network_folders import autoencoder_image_size
from diffsplat.pretrained.release_catalogue import ControlKind
from diffsplat.pretrained.released_networks import load_controlnet
from diffsplat.render import render
from diffsplat.training.condition_dropout import DroppedConditions
from diffsplat.training.denoiser_loss import ConditionedDenoiser, DenoiserLoss, LatentRendering
from diffsplat.training.latent_batches import LatentBatch
from diffsplat.training.network_initialisation import controlnet_from_unet
from diffsplat.training.prompt_table import PromptTable
from diffsplat.training.released_layout_export import Release
from diffsplat.training.rendered_view_loss import RenderingLossOptions
from diffsplat.training.run_folders import Need, StageFolders
from diffsplat.training.stages.denoiser_configs import (
    BackboneDenoiserConfig,
    DenoiserConfig,
    MiniDenoiserConfig,
)
from diffsplat.training.stages.stage_interface import Losses, Report, Stage, StageConfig
from diffsplat.training.stages.stage_reports import TILED_OBJECTS, report_rendering
from diffsplat.training.tensor_cache import folder_digest
from diffsplat.training.view_batches import every_caption
from diffsplat.training.view_encoder import ViewEncoder

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

Control = ControlKind | Literal["none"]
Batch = Views | LatentBatch

_QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Shares of the training's noise levels that held-out losses are measured at."""


@dataclass(frozen=True)
class DiffusionConfig(StageConfig):
    """A denoiser or ControlNet and its loss.

    Args:
        network: the denoiser.
        image: condition the denoiser on an image of view 0, which makes one more view.
        control: train a ControlNet for this kind of map on a frozen denoiser instead of the denoiser.
        rendering_loss: also render what is predicted and compare it with the views.
        rendering: that loss.
        dropout: share of objects that lose their text, their image, or both; each with this probability.
        sample_guidance: guidance scales that held-out samples are drawn with; none for no samples.
        sample_steps: denoising steps of those samples.
        sampled_objects: how many objects of an evaluation batch are sampled; 0 for none.

    Raises:
        ValueError: for a number out of range, or a ControlNet together with an image.
    """

    network: Annotated[DenoiserConfig, tyro.conf.arg(name="")] = field(default_factory=MiniDenoiserConfig)
    image: bool = False
    control: Control = "none"
    rendering_loss: bool = False
    rendering: RenderingLossOptions = field(default_factory=RenderingLossOptions)
    dropout: float = 0.05
    sample_guidance: tuple[float, ...] = (3.0,)
    sample_steps: int = 20
    sampled_objects: int = 4

    def __post_init__(self) -> None:
        require_at_least(1, self, "sample_steps")
        require_at_least(0, self, "sampled_objects")
        require(0 <= self.dropout <= 1 / 3, "dropout", self.dropout, "a share from 0 to 1/3")
        both = self.image and self.control != "none"
        require(not both, "control", self.control, "none with an image: ControlNets belong to text models")

    @property
    def needs(self) -> tuple[Need, ...]:
        """Trained networks that the stage or its batches are made from."""
        needed: list[Need] = ["reconstructor", "autoencoder"]
        if self.control != "none":
            needed.append("denoiser")
        if self.image and not isinstance(self.network, BackboneDenoiserConfig):
            needed.append("image_autoencoder")
        if self.network.takes_conditions:
            needed.append("condition_encoder")
        return tuple(needed)

    @property
    def pretrained(self) -> str | None:
        """Repository of a backbone's 2D model."""
        network = self.network
        return network.row.base_repository if isinstance(network, BackboneDenoiserConfig) else None

    @property
    def release(self) -> Release | None:
        """Place of a backbone's denoiser or ControlNet among the released weights."""
        if not isinstance(self.network, BackboneDenoiserConfig):
            return None
        row = self.network.row
        if self.control == "none":
            return Release.of_denoiser(row, image=self.image)
        return Release.of_controlnet(row, self.control)

    def network_size(self, folders: StageFolders, /) -> int | None:
        """Pixels per side of the images that the autoencoder is made for; None while it is not trained."""
        trained = folders.autoencoder is not None and folders.autoencoder.exists()
        return autoencoder_image_size(folders.trained("autoencoder")) if trained else None

    def build(self, folders: StageFolders, /) -> "DiffusionStage":
        """The stage.

        Raises:
            ValueError: for an image autoencoder of other latents than the splat autoencoder's.
        """
        encoder = ViewEncoder.open(folders, self.network.variant)
        image_encoder = self._image_encoder(folders, encoder.codec.latent_channels)
        start = folders.start_from if self.control == "none" else folders.trained("denoiser")
        denoiser = self.network.open(replace(folders, start_from=start), encoder.codec, self.image)
        loss = self._loss(encoder, denoiser, folders)
        return DiffusionStage(
            self,
            encoder,
            denoiser,
            loss,
            self._prompts(folders),
            self.network.scheduler(folders, self.image),
            image_encoder,
            self._distance(loss),
        )

    def _image_encoder(
        self, folders: StageFolders, latent_channels: int
    ) -> "AutoencoderKL | ConditionEncoder | None":
        if not self.image and not self.network.takes_conditions:
            return None
        encoder = self.network.image_encoder(folders)
        if self.image:
            channels = cast(Any, encoder).config.latent_channels
            expected = f"the {latent_channels} of the splat autoencoder"
            fits = channels == latent_channels
            require(fits, "the number of latent channels of the image autoencoder", channels, expected)
        return encoder

    def _distance(self, loss: DenoiserLoss) -> VggDistance | None:
        """The perceptual distance of the rendering loss, or where there is none, of weights that are given."""
        if loss.rendering is not None:
            return loss.rendering.loss.perceptual
        return self.rendering.distance() if self.rendering.perceptual_weights is not None else None

    def _loss(self, encoder: ViewEncoder, denoiser: Denoiser, folders: StageFolders) -> DenoiserLoss:
        controlnet = None
        if self.control != "none":
            factor = encoder.codec.image_size // encoder.codec.latent_size
            made = controlnet_from_unet(cast(Any, denoiser), downsampling=factor)
            controlnet = cast(Denoiser, made)
            cast(nn.Module, denoiser).requires_grad_(False)
        rendering = None
        if self.rendering_loss:
            rendering = LatentRendering(
                encoder.codec,
                self.rendering.rendering_loss(encoder.codec.pixel_grid),
                snr_gamma=self.network.rendering_snr_gamma,
            )
        objective = self.network.objective(folders, self.image)
        return DenoiserLoss(ConditionedDenoiser(denoiser, controlnet), objective, rendering)

    def _prompts(self, folders: StageFolders) -> PromptTable:
        source = self.network.prompts(folders)
        texts = ["", *every_caption(folders)]
        return PromptTable.open(folders.prompts, texts, source.make, folder_digest(source.folder))


class DiffusionStage(Stage[nn.Module]):
    """Denoising of splat latents (DiffSplat, ICLR 2025, section 3.3).

    views --- reconstructor, autoencoder --> latents --+
    captions - text encoder ---- dropout --> text -----+--> noise, denoiser --> diffusion loss
    view 0 --- image autoencoder, dropout --> image ---+         |
    view 0 --- depth, normals or edges -----> control -+         +--> decoder, rasterizer --> rendering loss

    Args:
        config: of the stage.
        encoder: views to latents; frozen.
        denoiser: takes latents and rays of all views.
        loss: losses of latents and conditions.
        prompts: encoded captions, the empty one among them.
        scheduler: samples.
        image_encoder: encodes condition images, of a network that takes several kinds control maps too; None for
            none.
        perceptual: distance that validations measure, and the rendering loss where there is one; None for none.
    """

    shardable = True

    def __init__(
        self,
        config: DiffusionConfig,
        encoder: ViewEncoder,
        denoiser: Denoiser,
        loss: DenoiserLoss,
        prompts: PromptTable,
        scheduler: Any,
        image_encoder: "AutoencoderKL | ConditionEncoder | None" = None,
        perceptual: VggDistance | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.denoiser = cast(nn.Module, denoiser)
        self.controlnet = cast("nn.Module | None", cast(ConditionedDenoiser, loss.denoiser).controlnet)
        self.network = self.controlnet or self.denoiser
        self.image_encoder = (
            None if image_encoder is None else cast(nn.Module, image_encoder).requires_grad_(False)
        )
        self.loss = loss
        self.perceptual = perceptual
        self.prompts = prompts
        self.scheduler = scheduler
        self.channels = min(denoised_channels(cast(Any, denoiser).config), encoder.codec.latent_channels)
        views = attended_views(encoder.codec.views, image=config.image)
        for network in (self.denoiser, self.controlnet):
            if network is not None:
                set_multiview_attention(network, views)

    def forward(self, batch: Batch, step: int, /) -> Losses:
        """Losses at a random noise level for each object, conditions dropped at random."""
        latents = self._latents(batch)
        dropped = DroppedConditions.draw(len(latents), self.config.dropout, latents.device)
        conditions = self._conditions(batch, latents, dropped)
        return Losses.mean(self.loss(latents, conditions, _views_if_any(batch), step))

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Report:
        """Loss of held-out objects over the noise levels, and figures and an image of samples for them.

        Those of batches with a condition begin with its kind.
        """
        report = self._evaluated(batch)
        if not isinstance(batch, LatentBatch) or batch.condition is None:
            return report
        kind = batch.condition.kind
        return Report(
            {f"{kind}_{name}": value for name, value in report.scalars.items()},
            {f"{kind}_{name}": image for name, image in report.images.items()},
        )

    def _evaluated(self, batch: Batch) -> Report:
        latents = self._latents(batch)
        conditions = self._conditions(batch, latents)
        scalars = {f"loss_{share:g}": self._loss_at(share, latents, conditions) for share in _QUANTILES}
        scalars = {"loss": sum(scalars.values()) / len(scalars), **scalars}
        if not self.config.sampled_objects:
            return Report(scalars)
        images: dict[str, Tensor] = {}
        shown = latents[: self.config.sampled_objects]
        made = {
            f"guidance_{scale:g}": self._decoded(self._samples(shown, conditions, scale))
            for scale in self.config.sample_guidance
        }
        if made and self.config.control != "none":
            free = replace(conditions, control=None)
            sampled = self._samples(shown, free, self.config.sample_guidance[-1])
            compared = {**made, "without_control": self._decoded(sampled)}
            scalars |= self._agreement(compared, _views(batch), self.config.control)
        for name, grid in (made or {"restored": self._decoded(self._restored(shown, conditions))}).items():
            report = self._compare(grid, batch)
            scalars |= {f"{figure}_{name}": value for figure, value in report.scalars.items()}
            images |= {f"{name}_{image}": pixels for image, pixels in report.images.items()}
        return Report(scalars, images)

    def start_from(self, folder: Path, /) -> None:
        """Take over the weights of a ControlNet; a denoiser was opened from there, as its input may be narrower."""
        if self.controlnet is not None:
            earlier = load_controlnet(folder, cast(Any, self.denoiser))
            self.controlnet.load_state_dict(earlier.state_dict())

    def _latents(self, batch: Batch) -> Tensor:
        """``[B, V, C, h, w]`` channels of the latents that are denoised."""
        latents = batch.latents if isinstance(batch, LatentBatch) else self.encoder(batch)
        return latents[:, :, : self.channels]

    def _conditions(
        self, batch: Batch, latents: Tensor, dropped: DroppedConditions | None = None
    ) -> Conditions:
        """Conditions of the objects, and the empty prompt to steer away from."""
        codec, count = self.encoder.codec, len(latents)
        cameras = batch.cameras[:, : codec.views]
        encoded = self.prompts([*batch.prompt, ""]).to(latents.device)
        text, empty = encoded.take(slice(0, count)), encoded.take(slice(count, None)).repeated(count)
        image = self._image_latents(batch)
        if dropped is not None:
            text = dropped.apply_to_text(text, empty)
            image = None if image is None else dropped.apply_to_image(image)
        return Conditions(
            rays=denoiser_rays(cameras, codec.latent_size, codec.pixel_grid),
            text=text,
            negative=empty,
            image_latent=image,
            control=self._control(batch),
        )

    @torch.no_grad()
    def _image_latents(self, batch: Batch) -> Tensor | None:
        if isinstance(self.image_encoder, ConditionEncoder):
            condition = batch.condition if isinstance(batch, LatentBatch) else None
            return None if condition is None else self.image_encoder.encode(condition.images, condition.kind)
        if self.image_encoder is None:
            return None
        # Only the trained network is in training mode, and only while it is trained.
        sample = self.network.training
        return image_latents(cast(Any, self.image_encoder), _views(batch).image[:, 0], sample=sample)

    def _control(self, batch: Batch) -> Tensor | None:
        if self.config.control == "none":
            return None
        return control_views(control_images(_views(batch), self.config.control), self.encoder.codec.views)

    def _loss_at(self, share: float, latents: Tensor, conditions: Conditions) -> float:
        levels = self.loss.objective.levels.at_quantile(latents.new_full(latents.shape[:1], share))
        losses = self.loss.at(latents, torch.randn_like(latents), levels, conditions)
        return float(losses.total.mean())

    def _samples(self, latents: Tensor, conditions: Conditions, guidance: float) -> Tensor:
        """Latents made of noise for the first objects, in the shape of theirs."""
        views = latents.shape[1]
        scales = (
            triangle_guidance(1.0, guidance, views)
            if conditions.image_latent is not None
            else constant_guidance(guidance, views)
        )
        guided = GuidedDenoiser(
            cast(Denoiser, self.denoiser),
            conditions.take(slice(0, len(latents))),
            scales.to(latents.device),
            self.loss.objective.prediction,
            controlnet=None if conditions.control is None else cast("Denoiser | None", self.controlnet),
        )
        return denoise(guided, torch.randn_like(latents), self.scheduler, self.config.sample_steps)

    def _agreement(self, grids: dict[str, SplatGrid], views: Views, kind: ControlKind) -> dict[str, float]:
        """How well the first objects' grids follow their control images, by the grids' names."""
        figures: dict[str, float] = {}
        for name, grid in grids.items():
            shown = views.objects(slice(0, grid.values.shape[0]))
            rendering = render(self._splats(grid, views), shown.cameras[:, :1])
            agreement = control_agreement(rendering, shown, kind)
            figures |= {f"{figure}_{name}": value for figure, value in agreement.items()}
        return figures

    def _restored(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """What the denoiser takes the first objects for at a high noise level."""
        loss, objective = self.loss, self.loss.objective
        levels = objective.levels.at_quantile(latents.new_full(latents.shape[:1], _QUANTILES[-1]))
        noisy = levels.noisy(latents, torch.randn_like(latents))
        predicted = loss.denoiser(noisy, levels.timestep, conditions.take(slice(0, len(latents))))
        return objective.clean_latents(predicted, noisy, levels)

    @without_autocast
    def _decoded(self, latents: Tensor) -> SplatGrid:
        return self.encoder.codec.decode(latents)

    def _splats(self, grid: SplatGrid, batch: Batch) -> Splats:
        codec = self.encoder.codec
        cameras = batch.cameras[: grid.values.shape[0], : codec.views]
        return grid.to_splats(cameras, codec.pixel_grid)

    def _compare(self, grid: SplatGrid, batch: Batch) -> Report:
        """Renderings of the first objects' grids in their views, or where these are not cached, in the grids' own."""
        count = grid.values.shape[0]
        rendering: Rendering = render(self._splats(grid, batch), batch.cameras[:count], normals=False)
        views = _views_if_any(batch)
        if views is not None:
            return report_rendering(rendering, views.objects(slice(0, count)), self.perceptual)
        shown = rendering.rgb[:TILED_OBJECTS]
        images = {"views": tile_images(shown.flatten(0, 1), columns=shown.shape[1]).clamp(0, 1)}
        if not isinstance(batch, LatentBatch) or batch.condition is None:
            return Report({}, images)
        return Report(self._likeness(rendering, batch), images)

    def _likeness(self, rendering: Rendering, batch: LatentBatch) -> dict[str, float]:
        """PSNR (dB) of the view of the condition and of the others, against the objects' own latents."""
        count = rendering.rgb.shape[0]
        grid = self._decoded(self._latents(batch)[:count])
        own = render(self._splats(grid, batch), batch.cameras[:count], normals=False)
        values = psnr(rendering.rgb, own.rgb)
        return {"psnr_seen": float(values[:, 0].mean()), "psnr_others": float(values[:, 1:].mean())}


def _views_if_any(batch: Batch) -> Views | None:
    return batch if isinstance(batch, Views) else batch.views


def _views(batch: Batch) -> Views:
    """The views of a batch, which some cached latents lack; the source of batches is chosen with the stage."""
    views = _views_if_any(batch)
    if views is None:
        raise TypeError("cached latents come without images, expected a source of views")
    return views
