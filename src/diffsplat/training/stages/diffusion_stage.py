"""Training of the text-conditioned denoiser on cached latents."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffsplat.geometry import turntable_cameras
from diffsplat.io.image_files import tile_images
from diffsplat.models import ComponentAutoencoder
from diffsplat.models.mini_denoiser import denoised_channels, make_denoiser, predict_latents
from diffsplat.models.multiview_pixart import MultiViewPixArt
from diffsplat.models.text.text_condition import TextCondition
from diffsplat.pipelines.denoising_loop import denoise
from diffsplat.pipelines.guidance import Conditions, GuidedDenoiser, constant_guidance
from diffsplat.pretrained.model_folders import DEFAULT_SHIFT
from diffsplat.pretrained.schedulers import FlowEulerScheduler
from diffsplat.render import render
from diffsplat.training.config_checks import require
from diffsplat.training.latent_cache import LatentBatch
from diffsplat.training.run_folders import Need, StageFolders
from diffsplat.training.stages.stage import Losses, Report, Stage, StageConfig

_EVALUATION_LEVELS = (0.6, 0.9, 0.97)
"""Noise levels that the error is measured at, as shares of the greatest."""


@dataclass(frozen=True)
class DiffusionConfig(StageConfig):
    """The denoiser and its objective.

    Args:
        width: width of the tokens, a multiple of 64.
        layers: transformer blocks.
        patch: edge of the square of latents that makes a token.
        channels: how many of the latents' channels are denoised, the principal ones; 0 for all. The others hold
            detail that text says nothing of and that a small network cannot make.
        text_channels: length of a text token.
        text_dropout: share of objects whose text is replaced by the empty prompt, for guidance.
        level_mean: mean of the logit of the noise level (Esser et al. 2024, section 3.1). Latents of thousands of
            numbers name their object already at level 0.95: what has to be learned from text lies above.
        level_deviation: deviation of that logit.
        greatest_level: noise levels are drawn below this one; of a refiner, at least the level that it takes over at.
        least_level: errors at lower noise levels count as at this one. The weight of the fine detail that is left
            there would otherwise outgrow that of the object's shape.
        sampled_objects: how many samples an evaluation draws; 0 for none.
        sample_guidance: guidance of those samples.
        sample_steps: denoising steps of those samples.
        sample_shift: shift of their noise levels towards noise (Esser et al. 2024, section 5.3.2).
    """

    width: int = 256
    layers: int = 7
    patch: int = 4
    channels: int = 0
    text_channels: int = 384
    text_dropout: float = 0.1
    level_mean: float = 1.8
    level_deviation: float = 1.6
    greatest_level: float = 1.0
    least_level: float = 0.25
    sampled_objects: int = 4
    sample_guidance: float = 3.0
    sample_steps: int = 20
    sample_shift: float = DEFAULT_SHIFT

    def __post_init__(self) -> None:
        level = self.greatest_level
        require(0 < level <= 1, "greatest_level", level, "a level above 0 and at most 1")
        require(self.channels >= 0, "channels", self.channels, "a number of channels, or 0 for all")

    @property
    def needs(self) -> tuple[Need, ...]:
        """Trained networks that it is made from."""
        return ("reconstructor", "autoencoder")

    def network(self, autoencoder: ComponentAutoencoder) -> MultiViewPixArt:
        """The untrained denoiser of an autoencoder's latents."""
        available = autoencoder.latent_channels
        expected = f"at most the {available} of the autoencoder"
        require(self.channels <= available, "channels", self.channels, expected)
        return make_denoiser(
            latent_channels=self.channels or available,
            latent_size=autoencoder.latent_size,
            width=self.width,
            layers=self.layers,
            text_channels=self.text_channels,
            patch=self.patch,
        )

    def build(self, folders: StageFolders, /) -> "DiffusionStage":
        """The stage."""
        return DiffusionStage(self, ComponentAutoencoder.from_pretrained(folders.trained("autoencoder")))


class DiffusionStage(Stage):
    """Flow matching on splat latents (Lipman et al. 2023) with a network that predicts the clean latents.

    All views of an object share one noise level. The squared error of the velocity is minimised, which is the
    squared error of the clean latents divided by the squared level (Li and He 2025), down to a least level.
    """

    def __init__(self, config: DiffusionConfig, autoencoder: ComponentAutoencoder) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = autoencoder.requires_grad_(False)
        self.denoiser = config.network(autoencoder)
        self.channels = denoised_channels(self.denoiser.config)

    def trainable(self) -> MultiViewPixArt:
        """The denoiser."""
        return self.denoiser

    def forward(self, batch: LatentBatch, _step: int, /) -> Losses:
        """Velocity error at a random noise level for each object, text dropped at random."""
        count = batch.latents.shape[0]
        normal = torch.randn(count, device=batch.latents.device)
        drawn = torch.sigmoid(self.config.level_mean + self.config.level_deviation * normal)
        level = self.config.greatest_level * drawn
        dropped = torch.rand(count, device=batch.latents.device) < self.config.text_dropout
        tokens = torch.where(dropped[:, None, None], batch.unconditional_tokens, batch.tokens)
        mask = torch.where(dropped[:, None], batch.unconditional_mask, batch.mask)
        loss = self._velocity_error(batch, level, TextCondition(tokens, mask))
        return Losses(loss)

    def _velocity_error(self, batch: LatentBatch, level: Tensor, text: TextCondition) -> Tensor:
        spread = level[:, None, None, None, None]
        latents = batch.latents[:, :, : self.channels]
        noisy = _noisy(latents, level)
        rays = batch.rays(self.autoencoder.latent_size, latents.shape[0])
        clean = predict_latents(self.denoiser, noisy, level, text, rays)
        return ((clean - latents) / spread.clamp_min(self.config.least_level)).square().mean()

    @torch.no_grad()
    def evaluate(self, batch: LatentBatch) -> Report:
        """Velocity error at fixed levels on held-out objects, and an image of samples for their captions."""
        scalars: dict[str, float] = {}
        for share in _EVALUATION_LEVELS:
            value = share * self.config.greatest_level
            level = torch.full(batch.latents.shape[:1], value, device=batch.latents.device)
            error = self._velocity_error(batch, level, TextCondition(batch.tokens, batch.mask))
            scalars[f"velocity_error_{value:.3g}"] = float(error)
        scalars["velocity_error"] = sum(scalars.values()) / len(scalars)
        images = {"samples": self._image(batch)} if self.config.sampled_objects else {}
        return Report(scalars, images)

    def _image(self, batch: LatentBatch) -> Tensor:
        """Four sides of a sample for each of the first captions, or of what a refiner restores; a row an object."""
        count = min(self.config.sampled_objects, batch.latents.shape[0])
        latents = (
            self._restored(batch, count) if self.config.greatest_level < 1 else self._samples(batch, count)
        )
        splats = self.autoencoder.decode(latents).to_splats(batch.cameras.for_objects(count))
        around = turntable_cameras(4, 20.0, size=self.autoencoder.image_size).for_objects(count)
        images = render(splats, around.to(latents.device), normals=False).rgb
        return tile_images(images.flatten(0, 1), columns=4).clamp(0, 1)

    def _restored(self, batch: LatentBatch, count: int) -> Tensor:
        """The guess at the first objects from the greatest noise level."""
        level = torch.full((count,), self.config.greatest_level, device=batch.latents.device)
        noisy = _noisy(batch.latents[:count, :, : self.channels], level)
        text = TextCondition(batch.tokens[:count], batch.mask[:count])
        rays = batch.rays(self.autoencoder.latent_size, count)
        return predict_latents(self.denoiser, noisy, level, text, rays)

    def _samples(self, batch: LatentBatch, count: int) -> Tensor:
        """Latents made of noise for the first captions."""
        negative = TextCondition(
            batch.unconditional_tokens.expand(count, -1, -1), batch.unconditional_mask.expand(count, -1)
        )
        text = TextCondition(batch.tokens[:count], batch.mask[:count])
        noise = torch.randn_like(batch.latents[:count, :, : self.channels])
        field = GuidedDenoiser(
            self.denoiser,
            Conditions(batch.rays(self.autoencoder.latent_size, count), text, negative),
            constant_guidance(self.config.sample_guidance, noise.shape[1]).to(noise),
            "latents",
        )
        scheduler = FlowEulerScheduler(self.config.sample_shift)
        return denoise(field, noise, scheduler, self.config.sample_steps)

    def save_pretrained(self, directory: Path, _step: int, /) -> None:
        """Write the denoiser."""
        self.denoiser.save_pretrained(directory, half=True)


def _noisy(latents: Tensor, level: Tensor) -> Tensor:
    """Latents ``[B, V, C, h, w]`` on the straight way to noise, at levels ``[B]``."""
    spread = level[:, None, None, None, None]
    return (1 - spread) * latents + spread * torch.randn_like(latents)
