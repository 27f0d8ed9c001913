"""What differs between the image-diffusion networks that splat latents are denoised with. Needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from diffsplat.errors import InvalidInputError
from diffsplat.models.network_families import Family

Prediction = Literal["epsilon", "v_prediction", "flow", "latents"]
"""What a network's output means: the noise, the velocity of Salimans and Ho (2022), noise minus latents on the
straight path between both (Lipman et al. 2023), or the clean latents on that path."""

Sampler = Literal["dpm++", "dpm++-sde", "ddim", "euler"]

ControlKind = Literal["depth", "normal", "canny"]

RELEASE_REPOSITORY = "chenguolin/DiffSplat"
"""Hugging Face repository of every release folder."""
RECONSTRUCTOR_RELEASE = "gsrecon_gobj265k_cnp_even4"
ELEVATION_RELEASE = "elevest_gobj265k_b_C25"

RELEASED_VIEWS = 4
RELEASED_IMAGE_SIZE = 256
"""Edge of a generated view in pixels; latents are an eighth of it."""


@dataclass(frozen=True)
class Backbone:
    """A row of :data:`BACKBONES`.

    Args:
        name: what users call it.
        family: which stock network denoises.
        base_repository: Hugging Face repository of the image-diffusion model that it was trained from.
        base_folders: subfolders of that repository that generation needs.
        latent_channels: channels of a latent.
        autoencoder_release: release folder of the splat autoencoder.
        text_release: release folder of the text-conditioned denoiser; empty where none was released.
        image_release: release folder of the image-conditioned denoiser; empty where none was released.
        control_releases: release folders of ControlNets by kind.
        sampler: the sampler it was released with.
        steps: denoising steps.
        text_guidance: classifier-free guidance scale of the text model.
        image_guidance: highest guidance scale of the image model.
        text_prediction: what the text model predicts.
        image_prediction: what the image model predicts.
        gated: whether the base repository asks for consent to a licence.
    """

    name: str
    family: Family
    base_repository: str
    base_folders: tuple[str, ...]
    latent_channels: int
    autoencoder_release: str
    text_release: str = ""
    image_release: str = ""
    control_releases: Mapping[ControlKind, str] = field(default_factory=dict)
    sampler: Sampler = "dpm++-sde"
    steps: int = 20
    text_guidance: float = 7.5
    image_guidance: float = 2.0
    text_prediction: Prediction = "epsilon"
    image_prediction: Prediction = "v_prediction"
    gated: bool = False


_ONE_ENCODER = ("scheduler", "text_encoder", "tokenizer", "vae")
_THREE_ENCODERS = (
    "scheduler",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
    "tokenizer",
    "tokenizer_2",
    "tokenizer_3",
    "vae",
)
_SD15_RELEASE = "gsdiff_gobj83k_sd15__render"

BACKBONES: dict[str, Backbone] = {
    row.name: row
    for row in (
        Backbone(
            name="sd15",
            family="unet",
            base_repository="stable-diffusion-v1-5/stable-diffusion-v1-5",
            base_folders=_ONE_ENCODER,
            latent_channels=4,
            autoencoder_release="gsvae_gobj265k_sd",
            text_release=_SD15_RELEASE,
            image_release="gsdiff_gobj83k_sd15_image__render",
            control_releases={
                "depth": f"{_SD15_RELEASE}__depth",
                "normal": f"{_SD15_RELEASE}__normal",
                "canny": f"{_SD15_RELEASE}__canny",
            },
        ),
        Backbone(
            name="pixart-sigma",
            family="pixart",
            base_repository="PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers",
            base_folders=_ONE_ENCODER,
            latent_channels=4,
            autoencoder_release="gsvae_gobj265k_sdxl_fp16",
            text_release="gsdiff_gobj83k_pas_fp16__render",
            image_release="gsdiff_gobj83k_pas_fp16_image__render",
            text_guidance=4.5,
        ),
        Backbone(
            name="sd35m",
            family="sd3",
            base_repository="stabilityai/stable-diffusion-3.5-medium",
            base_folders=_THREE_ENCODERS,
            latent_channels=16,
            autoencoder_release="gsvae_gobj265k_sd3",
            text_release="gsdiff_gobj83k_sd35m__render",
            image_release="gsdiff_gobj83k_sd35m_image__render",
            sampler="euler",
            steps=28,
            text_guidance=5.0,
            text_prediction="flow",
            image_prediction="flow",
            gated=True,
        ),
    )
}
"""The released backbones by name. The embedded model carries its own facts in its folder."""


def find_backbone(name: str) -> Backbone:
    """The row of a name.

    Raises:
        ValueError: for a name that is none.
    """
    if name not in BACKBONES:
        raise InvalidInputError(f"unknown backbone {name!r}, expected one of: {', '.join(BACKBONES)}")
    return BACKBONES[name]
