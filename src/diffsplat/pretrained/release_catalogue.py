"""Which released models there are, and which folders of which repository each consists of. Needs no torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from diffsplat.errors import InvalidInputError
from diffsplat.models.denoiser_families import Family

Prediction = Literal["epsilon", "v_prediction", "flow", "latents"]
"""What a network's output means: the noise, the velocity of Salimans and Ho (2022), noise minus latents on the
straight path between both (Lipman et al. 2023), or the clean latents on that path."""

Sampler = Literal["dpm++", "dpm++-sde", "ddim", "euler", "unipc", "lcm", "tcd"]

ControlKind = Literal["depth", "normal", "canny"]

Part = Literal["unet_ema", "transformer_ema", "controlnet"]
"""Subfolder of a release's iteration; reconstructor, autoencoder and elevation network lie in the iteration itself."""

DENOISER_PARTS: dict[Family, Part] = {
    "unet": "unet_ema",
    "pixart": "transformer_ema",
    "sd3": "transformer_ema",
}

RELEASE_REPOSITORY = "chenguolin/DiffSplat"
"""Hugging Face repository of every release folder."""
RECONSTRUCTOR_RELEASE = "gsrecon_gobj265k_cnp_even4"
ELEVATION_RELEASE = "elevest_gobj265k_b_C25"

RELEASED_IMAGE_SIZE = 256
"""Edge of a generated view in pixels; latents are an eighth of it."""


@dataclass(frozen=True)
class Backbone:
    """A released model: an image-diffusion network that was trained on splat latents, and what belongs to it.

    Args:
        name: what users call it.
        family: which network of diffusers denoises.
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
        tiny_autoencoder: repository of the distilled image autoencoder that a tiny decoder is trained from.
        fixed_autoencoder: repository of the image autoencoder that the splat autoencoder is trained from; empty where
            it is the base model's.
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
    tiny_autoencoder: str = "madebyollin/taesd"
    fixed_autoencoder: str = ""

    @property
    def trained_autoencoder(self) -> tuple[str, str]:
        """Repository of the image autoencoder that the splat autoencoder is trained from, and folder in it."""
        return (self.fixed_autoencoder, "") if self.fixed_autoencoder else (self.base_repository, "vae")

    @property
    def base_denoiser(self) -> str:
        """Folder of the 2D denoiser in the base repository."""
        return "unet" if self.family == "unet" else "transformer"


_ONE_ENCODER = ("scheduler", "text_encoder", "tokenizer", "vae")
_THREE_ENCODERS = (
    *("scheduler", "text_encoder", "text_encoder_2", "text_encoder_3"),
    *("tokenizer", "tokenizer_2", "tokenizer_3", "vae"),
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
            control_releases={kind: f"{_SD15_RELEASE}__{kind}" for kind in get_args(ControlKind)},
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
            tiny_autoencoder="madebyollin/taesdxl",
            fixed_autoencoder="madebyollin/sdxl-vae-fp16-fix",
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
            tiny_autoencoder="madebyollin/taesd3",
        ),
    )
}
"""The released backbones by name. The embedded model's folder describes itself."""

DINOV2_REPOSITORY = "facebook/dinov2-with-registers-base"
"""The vision transformer that the elevation network is trained from."""

SINGLES = ("reconstructor", "elevation")
"""Networks that belong to no backbone."""

_DENOISER_PARAMETERS: dict[Family, float] = {"unet": 0.86e9, "pixart": 0.61e9, "sd3": 2.24e9}
_CONTROLNET_PARAMETERS = 361e6
_TINY_PARAMETERS, _DINOV2_PARAMETERS = 2.4e6, 87e6
_AUTOENCODER_PARAMETERS = 84e6
_CLIP_L, _CLIP_G, _T5_XXL, _IMAGE_VAE = 123e6, 695e6, 4.76e9, 84e6
_BASE_PARAMETERS: dict[Family, dict[str, float]] = {
    "unet": {"text_encoder": _CLIP_L, "vae": _IMAGE_VAE},
    "pixart": {"text_encoder": _T5_XXL, "vae": _IMAGE_VAE},
    "sd3": {"text_encoder": _CLIP_L, "text_encoder_2": _CLIP_G, "text_encoder_3": _T5_XXL, "vae": _IMAGE_VAE},
}


def require_controls(backbone: Backbone, controls: Sequence[ControlKind]) -> None:
    """Make sure that ControlNets of these kinds were released.

    Raises:
        ValueError: when one was not.
    """
    for kind in controls:
        if kind not in backbone.control_releases:
            known = ", ".join(backbone.control_releases)
            expected = f"one of: {known}" if known else "none, or the backbone sd15"
            raise InvalidInputError(
                f"no ControlNet {kind!r} was released for {backbone.name!r}, expected {expected}"
            )


def only_kind(controls: Sequence[ControlKind]) -> ControlKind | None:
    """The kind of the control map, where one is followed."""
    return controls[0] if len(controls) == 1 else None


def find_backbone(name: str) -> Backbone:
    """The row of a name.

    Raises:
        ValueError: for a name that is none.
    """
    if name not in BACKBONES:
        raise InvalidInputError(f"unknown backbone {name!r}, expected one of: {', '.join(BACKBONES)}")
    return BACKBONES[name]


@dataclass(frozen=True)
class Component:
    """A folder of a repository that is downloaded as a whole.

    Args:
        label: what it is.
        repository: Hugging Face repository.
        folder: name of the release, or subfolder of an image-diffusion model.
        part: subfolder of the release's iteration.
        parameters: about how many weights it has; 0 for none.
        gated: whether the repository asks for consent to a licence.
    """

    label: str
    repository: str
    folder: str
    part: Part | None = None
    parameters: float = 0.0
    gated: bool = False

    @property
    def released(self) -> bool:
        """Whether it is a release rather than a part of an image-diffusion model."""
        return self.repository == RELEASE_REPOSITORY


_RECONSTRUCTOR = Component("reconstructor", RELEASE_REPOSITORY, RECONSTRUCTOR_RELEASE, parameters=42e6)
_ELEVATION = Component("elevation network", RELEASE_REPOSITORY, ELEVATION_RELEASE, parameters=86e6)


def model_components(
    backbone: Backbone, *, image: bool = False, controls: Sequence[ControlKind] = ()
) -> tuple[Component, ...]:
    """What generation needs.

    Args:
        backbone: row of the table.
        image: the image model and the elevation network rather than the text model.
        controls: ControlNets; they belong to the text model.

    Raises:
        ValueError: for a variant that was not released.
    """
    networks = _networks(backbone)
    require_controls(backbone, controls)
    labels = ["image model"] if image else []
    if controls or not image:
        labels = ["text model", *labels, *(f"{kind} control" for kind in controls)]
    for label in labels:
        if label not in networks:
            raise InvalidInputError(f"no {label} was released for {backbone.name!r}")
    elevation = (_ELEVATION,) if image else ()
    return (*(networks[label] for label in labels), *elevation, *_shared(backbone))


def every_component(name: str) -> tuple[Component, ...]:
    """All there is of a backbone, or one of :data:`SINGLES`.

    Raises:
        ValueError: for a name that is neither.
    """
    if name in SINGLES:
        return (_ELEVATION if name == "elevation" else _RECONSTRUCTOR,)
    if name not in BACKBONES:
        raise InvalidInputError(
            f"unknown model {name!r}, expected one of: {', '.join((*BACKBONES, *SINGLES))}"
        )
    row = BACKBONES[name]
    return (*_networks(row).values(), *_shared(row))


def training_components(name: str) -> tuple[Component, ...]:
    """What the training of a backbone's networks, or of one of :data:`SINGLES`, starts from: no release of ours.

    Raises:
        ValueError: for a name that is neither, or a network that starts from random weights.
    """
    if name == "elevation":
        return (Component("DINOv2 with registers", DINOV2_REPOSITORY, "", parameters=_DINOV2_PARAMETERS),)
    if name in SINGLES:
        raise InvalidInputError(
            f"the training of {name!r} starts from random weights, expected one of: elevation, {', '.join(BACKBONES)}"
        )
    row = find_backbone(name)
    parameters = _DENOISER_PARAMETERS[row.family]
    denoiser = Component(
        "2D denoiser", row.base_repository, row.base_denoiser, parameters=parameters, gated=row.gated
    )
    tiny = Component("tiny image autoencoder", row.tiny_autoencoder, "", parameters=_TINY_PARAMETERS)
    fixed = Component("image autoencoder", row.fixed_autoencoder, "", parameters=_IMAGE_VAE)
    return (denoiser, tiny, *((fixed,) if row.fixed_autoencoder else ()), *_base(row))


def trained_from(repository: str) -> str:
    """Name of the backbone or single network whose training starts from a repository."""
    names = ("elevation", *BACKBONES)
    return next(
        name for name in names if repository in {part.repository for part in training_components(name)}
    )


def _networks(row: Backbone) -> dict[str, Component]:
    """Denoisers and ControlNets of a backbone by their labels."""
    part, parameters = DENOISER_PARTS[row.family], _DENOISER_PARAMETERS[row.family]
    denoisers = {"text model": row.text_release, "image model": row.image_release}
    components = [
        Component(label, RELEASE_REPOSITORY, release, part, parameters)
        for label, release in denoisers.items()
        if release
    ]
    components += [
        Component(f"{kind} control", RELEASE_REPOSITORY, release, "controlnet", _CONTROLNET_PARAMETERS)
        for kind, release in row.control_releases.items()
    ]
    return {component.label: component for component in components}


def _shared(row: Backbone) -> tuple[Component, ...]:
    """What all variants of a backbone need: the splat autoencoder and parts of the image-diffusion model."""
    release, parameters = row.autoencoder_release, _AUTOENCODER_PARAMETERS
    return (Component("splat autoencoder", RELEASE_REPOSITORY, release, None, parameters), *_base(row))


def _base(row: Backbone) -> Iterator[Component]:
    """Parts of the image-diffusion model that generation needs."""
    for folder in row.base_folders:
        label, parameters = folder.replace("_", " "), _BASE_PARAMETERS[row.family].get(folder, 0.0)
        yield Component(label, row.base_repository, folder, None, parameters, row.gated)
