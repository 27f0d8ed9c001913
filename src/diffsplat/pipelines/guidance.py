"""Conditions of a generation, classifier-free guidance, and the hand-over from denoiser to refiner."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.errors import InvalidInputError
from diffsplat.models.denoiser_forward_pass import (
    Residuals,
    control_channels,
    control_residuals,
    network_output,
)
from diffsplat.models.rays_and_noise_levels import TIMESTEPS, noise_levels
from diffsplat.models.text.text_condition import TextCondition
from diffsplat.pipelines.denoising_loop import Field
from diffsplat.pipelines.pipeline_interfaces import Denoiser
from diffsplat.pretrained.model_folders import SamplingDefaults
from diffsplat.pretrained.release_catalogue import Prediction


@dataclass(frozen=True)
class Conditions:
    """Conditions of ``B`` objects.

    Args:
        rays: ``[B, V, 6, h, w]`` Pluecker rays at latent size.
        text: of ``B`` prompts.
        negative: what guidance steers away from; None for no guidance.
        image_latent: ``[B, C, h, w]`` scaled latents of an image of view 0, for an image-conditioned network; of one
            that also takes control maps those of :class:`~diffsplat.models.condition_encoder.ConditionEncoder`.
        control: ``[B, V, 3, H, W]`` control images 0..1, for a ControlNet.
    """

    rays: Tensor
    text: TextCondition
    negative: TextCondition | None = None
    image_latent: Tensor | None = None
    control: Tensor | None = None

    def take(self, chosen: slice) -> "Conditions":
        """Keep some objects."""
        return Conditions(
            rays=self.rays[chosen],
            text=self.text.take(chosen),
            negative=None if self.negative is None else self.negative.take(chosen),
            image_latent=None if self.image_latent is None else self.image_latent[chosen],
            control=None if self.control is None else self.control[chosen],
        )

    def doubled(self) -> "Conditions":
        """The unconditional half, then the conditional one: without image and with the negative text."""
        if self.negative is None:
            return self
        image = self.image_latent
        return Conditions(
            rays=torch.cat([self.rays, self.rays]),
            text=TextCondition.concatenate([self.negative, self.text]),
            image_latent=None if image is None else torch.cat([torch.zeros_like(image), image]),
            control=None if self.control is None else torch.cat([self.control, self.control]),
        )


@dataclass(frozen=True)
class ControlOptions:
    """How a ControlNet is used.

    Args:
        scale: factor of its residuals.
        guess_mode: it gets only the conditional half, and its shallow layers count less (Zhang et al. 2023).
    """

    scale: float = 1.0
    guess_mode: bool = False


class GuidedDenoiser:
    """A network's prediction with classifier-free guidance (Ho and Salimans 2022), view by view.

    Args:
        network: stock denoiser whose attention spans the views of :func:`attended_views`.
        conditions: of the objects.
        guidance: ``[V]`` scale ``w`` of each view in ``none + w * (text - none)``.
        prediction: what the network's output means.
        controlnet: its views set like the network's; needs a control image in the conditions.
        control: how it is used.
        rescale: of :func:`rescaled_guidance`.
    """

    def __init__(
        self,
        network: Denoiser,
        conditions: Conditions,
        guidance: Tensor,
        prediction: Prediction,
        *,
        controlnet: Denoiser | None = None,
        control: ControlOptions | None = None,
        rescale: float = 0.0,
    ) -> None:
        self.network = network
        self.guided = conditions.negative is not None
        self.conditions = conditions.doubled()
        self.guidance = guidance[:, None, None, None]
        self.prediction: Prediction = prediction
        self.controlnet = controlnet
        self.control = control or ControlOptions()
        self.rescale = rescale

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """The scheduler's prediction for latents ``[B, V, C, h, w]`` at timesteps ``[B]``."""
        predictions = self.predictions(latents, timestep)
        prediction = predictions[-1]
        if self.guided:
            without, with_text = predictions
            prediction = without + self.guidance * (with_text - without)
            if self.rescale:
                prediction = rescaled_guidance(prediction, with_text, self.rescale)
        if self.prediction == "latents":
            return (latents - prediction) / noise_levels(timestep)
        return prediction

    def predictions(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """``[2, B, V, C, h, w]`` what the network predicts without the text and with it; ``[1, ...]`` unguided."""
        batch = torch.cat([latents, latents]) if self.guided else latents
        steps = torch.cat([timestep, timestep]) if self.guided else timestep
        inputs = denoiser_inputs(batch, self.conditions, self.network.config["in_channels"])
        residuals = None if self.controlnet is None else self._residuals(self.controlnet, inputs, steps)
        output = network_output(self.network, inputs, steps, self.conditions.text, residuals)
        return of_views(output, latents).unflatten(0, (-1, len(latents)))

    def _residuals(self, controlnet: Denoiser, inputs: Tensor, timestep: Tensor) -> Residuals:
        control = self.conditions.control
        if control is None:
            raise InvalidInputError("a ControlNet was given without a control image, expected both or none")
        half = inputs.shape[0] // 2 if self.guided and self.control.guess_mode else 0
        views = control.shape[1]
        residuals = control_residuals(
            controlnet,
            inputs[half:, -views:, : control_channels(controlnet)],
            timestep[half:],
            self.conditions.text.take(slice(half, None)),
            control[half:],
            scale=self.control.scale,
            guess_mode=self.control.guess_mode,
        )

        def placed(part: Tensor) -> Tensor:
            """Zeros for the unconditional half, and for the view of an image, which the ControlNet does not know."""
            whole = part.new_zeros(*inputs.shape[:2], *part.shape[1:])
            whole[half:, -views:] = part.unflatten(0, (-1, views))
            return whole.flatten(0, 1)

        return Residuals(tuple(map(placed, residuals.down)), placed(residuals.middle))


class Handover:
    """Two predictions along one path, one at high noise levels and another at low ones.

    A denoiser hands over to a refiner: at high levels the object is decided, which takes its text and all of its
    views; at low ones surfaces are drawn, which takes finer tokens (Balaji et al. 2022, "eDiff-I", section 4). An
    unguided prediction hands over to a guided one, since guidance at the highest levels makes objects alike
    (Kynkäänniemi et al. 2024, "Applying Guidance in a Limited Interval", section 4).

    Args:
        high: prediction from a noise level of ``level`` on.
        low: prediction below it.
        level: 0 to 1.
    """

    def __init__(self, high: Field, low: Field, level: float) -> None:
        self.high = high
        self.low = low
        self.level = level

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """The scheduler's prediction for latents ``[B, V, C, h, w]`` at timesteps ``[B]``, the same for all."""
        below = float(timestep[0].detach()) < self.level * TIMESTEPS
        return (self.low if below else self.high)(latents, timestep)


def check_refiner(denoiser: Denoiser, refiner: Denoiser, defaults: SamplingDefaults) -> None:
    """Refuse a refiner of other latents than the denoiser's, and sampling defaults that it cannot work with.

    Raises:
        ValueError: naming what does not fit.
    """
    check_same_latents("refiner", denoiser, refiner)
    if not 0 < defaults.refined_below <= 1:
        raise InvalidInputError(
            f"refined_below is {defaults.refined_below}, expected a noise level above 0, at most 1"
        )
    if not defaults.flow_matched:
        raise InvalidInputError(
            f"the prediction is {defaults.prediction!r}, expected 'latents' or 'flow': others have no such noise "
            "level for a refiner"
        )


def check_same_latents(name: str, denoiser: Denoiser, other: Denoiser) -> None:
    """Refuse a network of other latents or captions than the denoiser's.

    Raises:
        ValueError: naming what differs.
    """
    for field in ("out_channels", "caption_channels"):
        expected, found = denoiser.config[field], other.config[field]
        if found != expected:
            raise InvalidInputError(
                f"the {name} has {found} {field}, expected the {expected} of the denoiser"
            )


def rescaled_guidance(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Bring a guided prediction back to the deviation of the conditional one, view by view (Lin et al. 2024, 3.4).

    Both are ``[B, V, C, h, w]``; a ``share`` of 0 changes nothing, 1 rescales fully.
    """
    views = (2, 3, 4)
    factor = conditional.std(dim=views, keepdim=True) / guided.std(dim=views, keepdim=True)
    return torch.lerp(guided, guided * factor, share)


def denoiser_inputs(latents: Tensor, conditions: Conditions, channels: int | None = None) -> Tensor:
    """A denoiser's input for every view: noisy latents, rays, and what it sees of an image.

    In the released networks of images, the image's latents take the place of noisy ones in a view before the
    others, which has the rays of view 0, and a mask 0 where the others have 1. A network of the embedded model's kind
    has the image's latents in further channels of view 0; in the other views and without an image they are zero.

    Args:
        latents: ``[B, V, C, h, w]`` noisy latents.
        conditions: of the same objects.
        channels: of the network's input, which tell the two kinds from each other.

    Returns:
        ``[B, V, C + 6, h, w]``, with an image ``[B, V + 1, C + 7, h, w]`` or ``[B, V, channels, h, w]``.
    """
    rays = conditions.rays.to(latents.dtype)
    inputs = torch.cat([latents, rays], dim=2)
    further = 0 if channels is None else channels - inputs.shape[2]
    if conditions.image_latent is None:
        return functional.pad(inputs, (0, 0, 0, 0, 0, further))
    image = conditions.image_latent.to(latents.dtype).unsqueeze(1)
    if further == image.shape[2]:
        views = functional.pad(image, (0, 0, 0, 0, 0, 0, 0, latents.shape[1] - 1))
        return torch.cat([inputs, views], dim=2)
    views = torch.cat([image, latents], dim=1)
    mask = torch.ones_like(views[:, :, :1])
    mask[:, 0] = 0
    return torch.cat([views, torch.cat([rays[:, :1], rays], dim=1), mask], dim=2)


def of_views(output: Tensor, latents: Tensor) -> Tensor:
    """A denoiser's prediction for noisy latents ``[B, V, C, h, w]`` out of all of its output.

    PixArt also predicts variances, and the slot of a condition image comes first.
    """
    return output[:, -latents.shape[1] :, : latents.shape[2]]


def attended_views(views: int, *, image: bool) -> int:
    """Number of views that attention spans: a condition image is one more."""
    return views + 1 if image else views


def constant_guidance(scale: float, views: int) -> Tensor:
    """``[V]`` the same scale for every view."""
    return torch.full((views,), scale)


def triangle_guidance(least: float, most: float, views: int) -> Tensor:
    """``[V]`` scales that rise from the first view, that of the image, to the opposite one and fall again."""
    around = torch.arange(views) / views
    return least + (most - least) * (1 - (1 - 2 * around).abs())
