"""Whole denoising loops against recorded ones."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from diffsplat.core import Cameras
from diffsplat.models.multiview_attention import set_multiview_attention
from diffsplat.models.rays_and_noise_levels import denoiser_rays
from diffsplat.pipelines.denoising_loop import denoise
from diffsplat.pipelines.guidance import (
    Conditions,
    ControlOptions,
    GuidedDenoiser,
    attended_views,
    constant_guidance,
    triangle_guidance,
)
from diffsplat.pipelines.image_and_control_conditions import control_views, image_latents
from diffsplat.pretrained.release_catalogue import Prediction, Sampler
from diffsplat.pretrained.released_networks import load_controlnet, load_denoiser
from diffsplat.pretrained.schedulers import make_scheduler
from support.recordings import Recordings, recorded_text, relative_error

TOLERANCE = 2e-5
"""Rounding makes about 1e-6; a forgotten condition, ten times this and more."""
SD_SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
}
PIXART_SCHEDULER = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
SD3_SCHEDULER = {"shift": 3.0}


@dataclass(frozen=True)
class Loop:
    """How a loop was recorded; steps and scales are those of the recordings' description.

    It leaves the guidance scales of two loops open: those have to agree at one of the scales in use.
    """

    network: str
    text: str
    scheduler: dict[str, Any]
    prediction: Prediction
    guidance: float | tuple[float, ...]
    sampler: Sampler = "dpm++"
    steps: int = 6
    latents: str = "latents"
    image_vae: str = ""
    shifted: bool = True
    control: ControlOptions | None = None


SD_TEXT = Loop("unet_text", "", SD_SCHEDULER, "epsilon", 7.5)
SD3_IMAGE = Loop(
    "sd3_image",
    "sd3_",
    SD3_SCHEDULER,
    "flow",
    2.0,
    sampler="euler",
    steps=5,
    latents="sd3_latents",
    image_vae="pipe_vae16",
)
LOOPS = {
    "out_sd_text": SD_TEXT,
    "out_sd_text_ddim_eta0": Loop("unet_text", "", SD_SCHEDULER, "epsilon", 7.5, sampler="ddim"),
    "out_sd_image_triangle": Loop("unet_image", "", SD_SCHEDULER, "v_prediction", 2.0, image_vae="pipe_vae4"),
    "out_sd_control": Loop("unet_text", "", SD_SCHEDULER, "epsilon", 7.5, control=ControlOptions(0.9)),
    "out_sd_control_guess": Loop(
        "unet_text", "", SD_SCHEDULER, "epsilon", 7.5, control=ControlOptions(0.9, guess_mode=True)
    ),
    "out_pas_image_triangle": Loop(
        "pixart_image", "pas_", PIXART_SCHEDULER, "v_prediction", 2.0, image_vae="pipe_vae4"
    ),
    "out_pas_text": Loop("pixart_text", "pas_", PIXART_SCHEDULER, "epsilon", (4.5, 7.5)),
    "out_sd3_text": Loop(
        "sd3_text",
        "sd3_",
        SD3_SCHEDULER,
        "flow",
        (5.0, 7.0, 7.5),
        sampler="euler",
        steps=5,
        latents="sd3_latents",
    ),
    "out_sd3_image": SD3_IMAGE,
    "out_sd3_image_unshifted": Loop(**{**SD3_IMAGE.__dict__, "shifted": False}),
}


def rays_of(io: dict[str, Tensor]) -> Tensor:
    size = io["image"].shape[-1]
    cameras = Cameras(io["c2w_opencv"][None], io["fxfycxcy"][None], width=size, height=size)
    return denoiser_rays(cameras, io["latents"].shape[-1], "legacy")


def conditions_of(io: dict[str, Tensor], loop: Loop, recordings: Recordings) -> Conditions:
    image, control = None, None
    if loop.image_vae:
        vae: Any = AutoencoderKL.from_pretrained(recordings.path(loop.image_vae))
        image = image_latents(vae, io["image"].flatten(0, 1), shifted=loop.shifted)
    if loop.control is not None:
        control = control_views(io["control"], io[loop.latents].shape[0])
    return Conditions(
        rays=rays_of(io),
        text=recorded_text(io, loop.text, ""),
        negative=recorded_text(io, loop.text, "negative_"),
        image_latent=image,
        control=control,
    )


def networks_of(recordings: Recordings, loop: Loop, views: int) -> tuple[Any, Any]:
    attended = attended_views(views, image=bool(loop.image_vae))
    network = load_denoiser(recordings.path(loop.network))
    controlnet = None
    if loop.control is not None:
        controlnet = load_controlnet(recordings.path("controlnet"), network)
        set_multiview_attention(controlnet, attended)
    set_multiview_attention(network, attended)
    return network, controlnet


def guidance_of(loop: Loop, scale: float, views: int) -> Tensor:
    if loop.image_vae:
        return triangle_guidance(1.0, scale, views)
    return constant_guidance(scale, views)


@pytest.mark.parametrize("name", LOOPS)
@torch.no_grad()
def test_loop(recordings: Recordings, name: str):
    io, loop = recordings.tensors("pipelines_io"), LOOPS[name]
    noise = io[loop.latents][None]
    views = noise.shape[1]
    network, controlnet = networks_of(recordings, loop, views)
    conditions = conditions_of(io, loop, recordings)
    errors: list[float] = []
    for scale in loop.guidance if isinstance(loop.guidance, tuple) else (loop.guidance,):
        field = GuidedDenoiser(
            network,
            conditions,
            guidance_of(loop, scale, views),
            loop.prediction,
            controlnet=controlnet,
            control=loop.control,
        )
        scheduler = make_scheduler(loop.sampler, loop.scheduler, loop.prediction)
        errors.append(relative_error(denoise(field, noise, scheduler, loop.steps)[0], io[name]))
    assert min(errors) < TOLERANCE
