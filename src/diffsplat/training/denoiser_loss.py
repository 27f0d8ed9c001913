"""Loss of a denoiser: the diffusion loss at random noise, and the rendering loss of what it predicts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffsplat.core import Rendering, SplatGrid, Views
from diffsplat.models.denoiser_forward_pass import control_residuals, network_output
from diffsplat.pipelines.guidance import Conditions, denoiser_inputs, of_views
from diffsplat.pipelines.pipeline_interfaces import Autoencoder, Denoiser
from diffsplat.training.diffusion_objective import NoiseLevels, Objective, rendering_weights
from diffsplat.training.rendered_view_loss import ObjectLosses, RenderedViewLoss

if TYPE_CHECKING:
    from diffsplat.models.splat_vae import DecoderKind

Predictor = Callable[[Tensor, Tensor, Conditions], Tensor]
"""Noisy latents ``[B, V, C, h, w]``, timesteps ``[B]`` and conditions to a prediction in the shape of the latents."""


@dataclass(frozen=True)
class ConditionedDenoiser:
    """A :data:`Predictor` of a denoiser, and of a ControlNet that steers it.

    Args:
        network: its attention spans the views, that of a condition image included.
        controlnet: its views set like the network's; needs control images in the conditions.
    """

    network: Denoiser
    controlnet: Denoiser | None = None

    def __call__(self, noisy: Tensor, timestep: Tensor, conditions: Conditions) -> Tensor:
        """Predict for the views of the latents."""
        inputs = denoiser_inputs(noisy, conditions, self.network.config["in_channels"])
        residuals = None
        if self.controlnet is not None and conditions.control is not None:
            residuals = control_residuals(
                self.controlnet, inputs, timestep, conditions.text, conditions.control
            )
        output = network_output(self.network, inputs, timestep, conditions.text, residuals)
        return of_views(output, noisy)


@dataclass(frozen=True)
class LatentRendering:
    """The rendering loss of latents that a denoiser predicts.

    Args:
        autoencoder: frozen; gradients pass through its decoder.
        loss: of the renderings.
        weight: of this loss, that of the diffusion loss being 1.
        decoder: which decoder of a :class:`SplatVAE`; None for the tiny one where there is one.
        snr_gamma: the loss of an object counts ``min(SNR, snr_gamma)``; None for 1.
    """

    autoencoder: Autoencoder
    loss: RenderedViewLoss
    weight: float = 1.0
    decoder: "DecoderKind | None" = None
    snr_gamma: float | None = None

    def render(self, latents: Tensor, views: Views) -> Rendering:
        """Renderings of latents ``[B, V, C, h, w]`` of the first ``V`` views in all of the views."""
        return self.loss.render(self._decode(latents), views, self.autoencoder.pixel_grid)

    def _decode(self, latents: Tensor) -> SplatGrid:
        tiny = getattr(self.autoencoder, "tiny_decoder", None) is not None
        decoder = self.decoder or ("tiny" if tiny else None)
        options: dict[str, Any] = {"decoder": decoder} if decoder else {}
        return self.autoencoder.decode(latents, **options)

    def losses(self, latents: Tensor, views: Views, levels: NoiseLevels, step: int) -> ObjectLosses:
        """Losses of objects whose latents were predicted at noise levels, before :attr:`weight`."""
        losses = self.loss(self.render(latents, views), views, step)
        if self.snr_gamma is None:
            return losses
        return ObjectLosses(rendering_weights(levels, self.snr_gamma) * losses.total, losses.terms)


@dataclass(frozen=True)
class DenoiserLoss:
    """Losses of a batch of objects.

    Args:
        denoiser: what predicts.
        objective: what it learns.
        rendering: rendering loss; None for none.
        diffusion_weight: of the objective's loss.
    """

    denoiser: Predictor
    objective: Objective
    rendering: LatentRendering | None = None
    diffusion_weight: float = 1.0

    def __call__(
        self, latents: Tensor, conditions: Conditions, views: Views | None = None, step: int = 1
    ) -> ObjectLosses:
        """Losses at random noise.

        Args:
            latents: ``[B, V, C, h, w]`` scaled clean latents.
            conditions: of the objects, after dropout.
            views: ``[B, V' >= V]``, whose first ``V`` are those of the latents; for the rendering loss.
            step: of the training, counted from 1.
        """
        levels = self.objective.levels.draw(latents.shape[0], latents.device)
        return self.at(latents, torch.randn_like(latents), levels, conditions, views, step)

    def at(
        self,
        latents: Tensor,
        noise: Tensor,
        levels: NoiseLevels,
        conditions: Conditions,
        views: Views | None = None,
        step: int = 1,
    ) -> ObjectLosses:
        """Losses at given noise ``[B, V, C, h, w]`` and levels; other arguments as of a call."""
        noisy = levels.noisy(latents, noise)
        predicted = self.denoiser(noisy, levels.timestep, conditions)
        diffusion = self.objective.losses(predicted, latents, noise, levels)
        total, terms = self.diffusion_weight * diffusion, {"diffusion": diffusion.detach()}
        if self.rendering is not None and views is not None:
            clean = self.objective.clean_latents(predicted, noisy, levels)
            rendered = self.rendering.losses(clean, views, levels, step)
            total = total + self.rendering.weight * rendered.total
            terms |= {"rendering": rendered.total.detach(), **rendered.terms}
        return ObjectLosses(total, terms)
