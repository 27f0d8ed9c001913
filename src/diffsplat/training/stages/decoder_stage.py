"""Training of the autoencoder's decoder on what a trained denoiser makes of the objects."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from torch import Tensor

from diffsplat.core import Cameras, Rendering, SplatGrid
from diffsplat.errors import InvalidInputError
from diffsplat.evaluation.image_metrics import psnr
from diffsplat.geometry import orbit_cameras
from diffsplat.io.image_files import tile_images
from diffsplat.models import GSAutoencoder
from diffsplat.models.mini_denoiser import denoised_channels, predict_latents
from diffsplat.models.multiview_attention import set_multiview_attention
from diffsplat.models.text.text_condition import TextCondition
from diffsplat.pretrained.network_folders import load_network, save_half
from diffsplat.render import render
from diffsplat.training.latent_cache import LatentBatch
from diffsplat.training.losses import grid_loss
from diffsplat.training.stages.stage import Losses, Report, Stage
from diffsplat.training.trainer_config import REFINER_LEVEL, OptionalPlace, Place


@dataclass(frozen=True)
class DecoderConfig:
    """What the decoder learns to forgive, and what it may not unlearn.

    Args:
        autoencoder: folder of the trained autoencoder.
        denoiser: folder of the trained denoiser.
        refiner: folder of its trained refiner; None where the model has none.
        refined_below: noise level below which the refiner works, as in the exported model.
        denoised_share: share of a batch that is decoded from the denoiser's latents; the others keep their own.
        least_level, greatest_level: between these the noise levels are drawn that the denoiser starts from.
        denoising_steps: steps from there to clean latents.
        rendered_objects: how many of the denoised objects of a batch are also compared in renderings.
        rendering_weight: of that rendering loss.
    """

    autoencoder: Place = Path("autoencoder")
    denoiser: Place = Path("denoiser")
    refiner: OptionalPlace = None
    refined_below: float = REFINER_LEVEL
    denoised_share: float = 0.5
    least_level: float = 0.6
    greatest_level: float = 0.97
    denoising_steps: int = 3
    rendered_objects: int = 1
    rendering_weight: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.denoised_share <= 1:
            raise InvalidInputError(
                f"denoised_share is {self.denoised_share}, expected above 0 and at most 1"
            )
        if not 0 < self.least_level <= self.greatest_level < 1 or self.denoising_steps < 1:
            raise InvalidInputError(
                f"levels {self.least_level} to {self.greatest_level}, {self.denoising_steps} steps: "
                "expected levels between 0 and 1 that do not fall and at least one step"
            )


_VIEWS = 4
_ELEVATION_DEG = 15.0


class DecoderStage(Stage):
    """Grid loss of the decoder on latents that the denoiser restored from noise.

    A denoiser leaves blur and contradictions between the views that random noise does not look like. The decoder
    works once for a sample and on finer tokens than the denoiser, so it can afford to clean up. The encoder stays
    as it is, and with it the latents.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = load_network(GSAutoencoder, config.autoencoder)
        self.denoiser = self._load_denoiser(config.denoiser)
        self.refiner = None if config.refiner is None else self._load_denoiser(config.refiner)
        self.channels = denoised_channels(self.denoiser.config)

    def _load_denoiser(self, folder: Path) -> PixArtTransformer2DModel:
        network = load_network(PixArtTransformer2DModel, folder).requires_grad_(False)
        set_multiview_attention(network, self.autoencoder.views)
        return network

    def trainable(self) -> GSAutoencoder:
        """The autoencoder; its encoder has no parameters."""
        return self.autoencoder

    def forward(self, batch: LatentBatch) -> Losses:
        """Loss of one batch, whose first objects come from the denoiser."""
        target = _grids(batch).values
        count = max(1, round(self.config.denoised_share * target.shape[0]))
        latents = torch.cat([self._denoised(batch, count), self._known(batch)[count:]])
        values = self.autoencoder.reconstruct(latents)
        total, parts = grid_loss(values, target)
        if self.config.rendered_objects:
            chosen = slice(0, self.config.rendered_objects)
            around = _cameras(batch, float(torch.rand(())) * 90.0)
            truth = _render(SplatGrid(target[chosen]), batch, around).rgb
            shown = _render(SplatGrid(values[chosen].clamp(-1, 1)), batch, around).rgb
            error = (shown - truth).square().mean()
            total = total + self.config.rendering_weight * error
            parts["rgb"] = error.detach()
        return Losses(total, parts)

    @torch.no_grad()
    def evaluate(self, batch: LatentBatch) -> Report:
        """PSNR against the grids themselves, from the latents and through the denoiser, and a picture of both."""
        around = _cameras(batch, 45.0)
        restored = self._denoised(batch, batch.latents.shape[0])
        truth = _render(_grids(batch), batch, around).rgb
        rows, scalars = [truth[0]], {}
        for name, latents in (("latents", self._known(batch)), ("denoised", restored)):
            images = _render(self.autoencoder.decode(latents), batch, around).rgb
            scalars[f"psnr_{name}"] = float(psnr(images, truth).mean())
            rows.append(images[0])
        return Report(scalars, {"decoded": tile_images(torch.cat(rows), columns=_VIEWS).clamp(0, 1)})

    def save_pretrained(self, directory: Path) -> None:
        """Write the autoencoder."""
        save_half(self.autoencoder, directory)

    @torch.no_grad()
    def _denoised(self, batch: LatentBatch, count: int) -> Tensor:
        """``[count, V, C, h, w]`` latents of the first objects, noised to random levels and denoised again."""
        clean = self._known(batch)[:count, :, : self.channels]
        least, greatest = self.config.least_level, self.config.greatest_level
        level = least + (greatest - least) * torch.rand(count, device=clean.device)
        text = TextCondition(batch.tokens[:count], batch.mask[:count])
        rays = batch.rays(self.autoencoder.latent_size, count)
        wide = level[:, None, None, None, None]
        state = (1 - wide) * clean + wide * torch.randn_like(clean)
        for step in range(self.config.denoising_steps):
            left = 1 - step / self.config.denoising_steps
            guess = self._guess(state, level * left, text, rays)
            # A step of Euler's method along the velocity (state - guess) / level.
            state = state + (guess - state) / (self.config.denoising_steps - step)
        return self.autoencoder.all_channels(state)

    def _known(self, batch: LatentBatch) -> Tensor:
        """``[B, V, C, h, w]`` the batch's own latents, as far as the denoiser can make them."""
        return self.autoencoder.all_channels(batch.latents[:, :, : self.channels])

    def _guess(self, state: Tensor, level: Tensor, text: TextCondition, rays: Tensor) -> Tensor:
        """Clean latents by the network that works at each object's noise level."""
        low = level < self.config.refined_below
        if self.refiner is None or not low.any():
            return predict_latents(self.denoiser, state, level, text, rays)
        refined = predict_latents(self.refiner, state, level, text, rays)
        if low.all():
            return refined
        guess = predict_latents(self.denoiser, state, level, text, rays)
        return torch.where(low[:, None, None, None, None], refined, guess)


def _grids(batch: LatentBatch) -> SplatGrid:
    if batch.grids is None:
        raise InvalidInputError("got a batch without splat grids, expected a source with_grids")
    return batch.grids


def _cameras(batch: LatentBatch, azimuth_deg: float) -> Cameras:
    """``[4]`` cameras around the object, the first of them at an azimuth."""
    turns = [azimuth_deg + 360.0 * view / _VIEWS for view in range(_VIEWS)]
    size = batch.cameras.width
    return orbit_cameras(turns, _ELEVATION_DEG, width=size, height=size)


def _render(grids: SplatGrid, batch: LatentBatch, around: Cameras) -> Rendering:
    count = grids.values.shape[0]
    splats = grids.to_splats(batch.cameras.for_objects(count))
    return render(splats, around.for_objects(count).to(splats.device), normals=False)
