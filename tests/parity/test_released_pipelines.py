"""Recorded loops through ``DiffSplatPipeline.from_pretrained``, from folders of releases with the recorded weights.

The steps and, of the loops that name it, the sampler are given; everything else is the model's default.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffsplat.core import SplatGrid
from diffsplat.models.text.stored_prompts import StoredPrompts
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pretrained.release_catalogue import ControlKind
from support.recordings import Recordings, recorded_text, relative_error
from support.release_folders import SCHEDULERS

TOLERANCE = 2e-5
PROMPT = "a recorded prompt"


@dataclass(frozen=True)
class ReleasedLoop:
    """A recorded loop, and which release the weights of its networks are put in place of."""

    model: str
    denoiser: Path
    recorded_denoiser: str
    image_vae: str
    splat_vae: str
    splat_vae_release: str
    base: str
    text: str = ""
    latents: str = "latents"
    control: ControlKind | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def from_image(self) -> bool:
        return "image" in self.recorded_denoiser


def iteration(release: str, part: str = "") -> Path:
    return Path(release) / "checkpoints" / "013020" / part


SD15 = {
    "model": "sd15",
    "image_vae": "pipe_vae4",
    "splat_vae": "gsvae_sd",
    "splat_vae_release": "gsvae_gobj265k_sd",
    "base": "stable-diffusion-v1-5",
}
SD15_TEXT = SD15 | {
    "denoiser": iteration("gsdiff_gobj83k_sd15__render", "unet_ema"),
    "recorded_denoiser": "unet_text",
}
SD35M_IMAGE = {
    "model": "sd35m",
    "denoiser": iteration("gsdiff_gobj83k_sd35m_image__render", "transformer_ema"),
    "recorded_denoiser": "sd3_image",
    "image_vae": "pipe_vae16",
    "splat_vae": "gsvae_sd3",
    "splat_vae_release": "gsvae_gobj265k_sd3",
    "base": "stable-diffusion-3.5-medium",
    "text": "sd3_",
    "latents": "sd3_latents",
}
LOOPS = {
    "out_sd_text": ReleasedLoop(**SD15_TEXT, options={"steps": 6, "sampler": "dpm++"}),
    "out_sd_text_ddim_eta0": ReleasedLoop(**SD15_TEXT, options={"steps": 6, "sampler": "ddim"}),
    "out_sd_control": ReleasedLoop(
        **SD15_TEXT, control="depth", options={"steps": 6, "sampler": "dpm++", "control_scale": 0.9}
    ),
    "out_sd_image_triangle": ReleasedLoop(
        **SD15,
        denoiser=iteration("gsdiff_gobj83k_sd15_image__render", "unet_ema"),
        recorded_denoiser="unet_image",
        options={"steps": 6, "sampler": "dpm++", "elevation": 10.0},
    ),
    "out_pas_image_triangle": ReleasedLoop(
        model="pixart-sigma",
        denoiser=iteration("gsdiff_gobj83k_pas_fp16_image__render", "transformer_ema"),
        recorded_denoiser="pixart_image",
        image_vae="pipe_vae4",
        splat_vae="gsvae_sd",
        splat_vae_release="gsvae_gobj265k_sdxl_fp16",
        base="pixart_sigma_sdxlvae_T5_diffusers",
        text="pas_",
        options={"steps": 6, "sampler": "dpm++", "elevation": 10.0},
    ),
    "out_sd3_image": ReleasedLoop(**SD35M_IMAGE, options={"steps": 5, "elevation": 10.0}),
    "out_sd3_image_unshifted": ReleasedLoop(
        **SD35M_IMAGE, options={"steps": 5, "elevation": 10.0, "unshifted": True}
    ),
}


def build_weights(loop: ReleasedLoop, recordings: Recordings, weights: Path) -> Path:
    """Release folders with the recorded weights."""
    shutil.copytree(recordings.path(loop.recorded_denoiser), weights / loop.denoiser)
    shutil.copytree(recordings.path(loop.image_vae), weights / loop.base / "vae")
    (weights / loop.base / "scheduler").mkdir()
    scheduler = json.dumps(SCHEDULERS[loop.model])
    (weights / loop.base / "scheduler" / "scheduler_config.json").write_text(scheduler)
    splat_vae = weights / iteration(loop.splat_vae_release)
    splat_vae.mkdir(parents=True)
    shutil.copy(recordings.path(f"{loop.splat_vae}_weights.safetensors"), splat_vae / "model.safetensors")
    if loop.control is not None:
        control = iteration("gsdiff_gobj83k_sd15__render__depth", "controlnet")
        shutil.copytree(recordings.path("controlnet"), weights / control)
    return weights


def open_pipeline(loop: ReleasedLoop, io: dict[str, Tensor], weights: Path) -> DiffSplatPipeline:
    """The model in fp32 and at the recorded size: 64 pixels instead of 256."""
    texts = {PROMPT: recorded_text(io, loop.text), "": recorded_text(io, loop.text, "negative_")}
    pipe = DiffSplatPipeline.from_pretrained(
        loop.model,
        weights=weights,
        image=loop.from_image,
        control=loop.control,
        text_encoder=StoredPrompts(texts),
    )
    pipe.precision = "fp32"
    vae: Any = pipe.autoencoder
    vae.latent_size = io[loop.latents].shape[-1]
    vae.image_size = vae.latent_size * vae.factor
    return pipe


@pytest.mark.parametrize("name", LOOPS)
def test_the_latents_that_the_pipeline_decodes(
    recordings: Recordings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    io, loop = recordings.tensors("pipelines_io"), LOOPS[name]
    pipe = open_pipeline(loop, io, build_weights(loop, recordings, tmp_path))
    decode, decoded = pipe.autoencoder.decode, []

    def watched_decode(latents: Tensor) -> SplatGrid:
        decoded.append(latents)
        return decode(latents)

    monkeypatch.setattr(pipe.autoencoder, "decode", watched_decode)
    monkeypatch.setattr(
        "diffsplat.pipelines.tensor_inputs.object_noise", lambda *_: io[loop.latents][None].clone()
    )
    out = pipe(
        PROMPT,
        image=io["image"][0, 0] if loop.from_image else None,
        control=io["control"][0] if loop.control else None,
        **loop.options,
    )
    assert relative_error(decoded[0][0], io[name]) < TOLERANCE
    torch.testing.assert_close(out.cameras.camera_to_world[0], io["c2w_opencv"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        (
            "out_sd_image_triangle",
            "DPMSolverMultistepScheduler",
            {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "prediction_type": "v_prediction"},
        ),
        (
            "out_sd_text",
            "DPMSolverMultistepScheduler",
            {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "prediction_type": "epsilon"},
        ),
        (
            "out_pas_image_triangle",
            "DPMSolverMultistepScheduler",
            {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "prediction_type": "v_prediction"},
        ),
        ("out_sd3_image", "FlowEulerScheduler", {"shift": 3.0}),
    ],
)
def test_the_sampler_unless_another_is_named(
    recordings: Recordings, tmp_path: Path, name: str, kind: str, settings: dict[str, Any]
):
    io, loop = recordings.tensors("pipelines_io"), LOOPS[name]
    scheduler = open_pipeline(loop, io, build_weights(loop, recordings, tmp_path)).scheduler
    assert type(scheduler).__name__ == kind
    assert {key: scheduler.config[key] for key in settings} == settings
