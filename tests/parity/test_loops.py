"""Whole denoising loops against recorded ones."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from diffsplat.core import Cameras
from diffsplat.models.mini_denoiser import denoiser_rays
from diffsplat.models.multiview_attention import set_multiview_attention
from diffsplat.models.text.text_condition import TextCondition
from diffsplat.pipelines.denoising_loop import denoise
from diffsplat.pipelines.guidance import (
    Conditions,
    ControlOptions,
    GuidedDenoiser,
    attended_views,
    constant_guidance,
    triangle_guidance,
)
from diffsplat.pipelines.image_conditioning import control_views, image_latents
from diffsplat.pretrained.catalogue import Prediction, Sampler
from diffsplat.pretrained.released_networks import load_controlnet, load_denoiser
from diffsplat.pretrained.schedulers import make_scheduler
from support.recordings import Recordings, relative_error

TOLERANCE = 1e-3
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
    """How a loop was recorded; steps and scales are those of the recordings' description."""

    network: str
    text: str
    scheduler: dict[str, Any]
    prediction: Prediction
    guidance: float
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
    "out_sd3_image": SD3_IMAGE,
    "out_sd3_image_unshifted": Loop(**{**SD3_IMAGE.__dict__, "shifted": False}),
}


def text_condition(io: dict[str, Tensor], prefix: str, sign: str) -> TextCondition:
    mask = io.get(f"{prefix}{sign}prompt_attention_mask")
    return TextCondition(
        tokens=io[f"{prefix}{sign}prompt_embeds"],
        mask=None if mask is None else mask > 0.5,
        pooled=io.get(f"{prefix}{sign}pooled"),
    )


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
        text=text_condition(io, loop.text, ""),
        negative=text_condition(io, loop.text, "negative_"),
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


@pytest.mark.parametrize("name", LOOPS)
@torch.no_grad()
def test_loop(recordings: Recordings, name: str):
    io, loop = recordings.tensors("pipelines_io"), LOOPS[name]
    if name not in io:
        pytest.skip(f"{name} was not recorded")
    noise = io[loop.latents][None]
    views = noise.shape[1]
    network, controlnet = networks_of(recordings, loop, views)
    guidance = (
        triangle_guidance(1.0, loop.guidance, views)
        if loop.image_vae
        else constant_guidance(loop.guidance, views)
    )
    field = GuidedDenoiser(
        network,
        conditions_of(io, loop, recordings),
        guidance,
        loop.prediction,
        controlnet=controlnet,
        control=loop.control,
    )
    scheduler = make_scheduler(loop.sampler, loop.scheduler, loop.prediction)
    assert relative_error(denoise(field, noise, scheduler, loop.steps)[0], io[name]) < TOLERANCE
