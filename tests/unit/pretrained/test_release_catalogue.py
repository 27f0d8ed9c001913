"""The table of released models against the facts of the release, written out here."""

from dataclasses import dataclass, field

import pytest

from diffsplat.pretrained.release_catalogue import (
    BACKBONES,
    ELEVATION_RELEASE,
    RECONSTRUCTOR_RELEASE,
    RELEASE_REPOSITORY,
    Backbone,
    every_component,
    model_components,
    trained_from,
    training_components,
)
from diffsplat.pretrained.released_model_opening import ReleasedModel


@dataclass(frozen=True)
class Facts:
    """How a backbone was released and sampled: the original's folders, schedules and targets."""

    base: str
    encoders: int
    latent_channels: int
    autoencoder: str
    text: str
    image: str
    sampler: str
    steps: int
    text_guidance: float
    text_prediction: str
    image_prediction: str
    part: str = "transformer_ema"
    controls: dict[str, str] = field(default_factory=dict)
    image_guidance: float = 2.0


FACTS = {
    "sd15": Facts(
        base="stable-diffusion-v1-5/stable-diffusion-v1-5",
        encoders=1,
        latent_channels=4,
        autoencoder="gsvae_gobj265k_sd",
        text="gsdiff_gobj83k_sd15__render",
        image="gsdiff_gobj83k_sd15_image__render",
        sampler="dpm++-sde",
        steps=20,
        text_guidance=7.5,
        text_prediction="epsilon",
        image_prediction="v_prediction",
        part="unet_ema",
        controls={
            "depth": "gsdiff_gobj83k_sd15__render__depth",
            "normal": "gsdiff_gobj83k_sd15__render__normal",
            "canny": "gsdiff_gobj83k_sd15__render__canny",
        },
    ),
    "pixart-sigma": Facts(
        base="PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers",
        encoders=1,
        latent_channels=4,
        autoencoder="gsvae_gobj265k_sdxl_fp16",
        text="gsdiff_gobj83k_pas_fp16__render",
        image="gsdiff_gobj83k_pas_fp16_image__render",
        sampler="dpm++-sde",
        steps=20,
        text_guidance=4.5,
        text_prediction="epsilon",
        image_prediction="v_prediction",
    ),
    "sd35m": Facts(
        base="stabilityai/stable-diffusion-3.5-medium",
        encoders=3,
        latent_channels=16,
        autoencoder="gsvae_gobj265k_sd3",
        text="gsdiff_gobj83k_sd35m__render",
        image="gsdiff_gobj83k_sd35m_image__render",
        sampler="euler",
        steps=28,
        text_guidance=5.0,
        text_prediction="flow",
        image_prediction="flow",
    ),
}


def test_all_backbones_and_single_networks_are_there():
    assert set(BACKBONES) == set(FACTS)
    assert RELEASE_REPOSITORY == "chenguolin/DiffSplat"
    assert RECONSTRUCTOR_RELEASE == "gsrecon_gobj265k_cnp_even4"
    assert ELEVATION_RELEASE == "elevest_gobj265k_b_C25"


@pytest.mark.parametrize("name", FACTS)
def test_folders(name: str):
    row, facts = BACKBONES[name], FACTS[name]
    assert row.base_repository == facts.base
    assert row.latent_channels == facts.latent_channels
    assert row.autoencoder_release == facts.autoencoder
    assert (row.text_release, row.image_release) == (facts.text, facts.image)
    assert row.control_releases == facts.controls
    assert row.gated == (name == "sd35m")
    numbers = ("", "_2", "_3")[: facts.encoders]
    encoders = {f"{kind}{number}" for kind in ("text_encoder", "tokenizer") for number in numbers}
    assert set(row.base_folders) == {"scheduler", "vae"} | encoders


@pytest.mark.parametrize("name", FACTS)
def test_sampling(name: str):
    row, facts = BACKBONES[name], FACTS[name]
    assert (row.sampler, row.steps) == (facts.sampler, facts.steps)
    text, image = ReleasedModel(row).defaults, ReleasedModel(row, image=True).defaults
    assert (text.steps, text.guidance, text.prediction) == (
        facts.steps,
        facts.text_guidance,
        facts.text_prediction,
    )
    assert (image.steps, image.guidance, image.prediction) == (
        facts.steps,
        facts.image_guidance,
        facts.image_prediction,
    )
    assert text.elevation_deg == 10.0


def folders_of(row: Backbone, *, image: bool) -> set[tuple[str, str, str | None]]:
    return {(part.repository, part.folder, part.part) for part in model_components(row, image=image)}


@pytest.mark.parametrize("name", FACTS)
def test_what_is_downloaded(name: str):
    row, facts = BACKBONES[name], FACTS[name]
    shared = {(facts.base, folder, None) for folder in row.base_folders}
    shared.add(("chenguolin/DiffSplat", facts.autoencoder, None))
    text = ("chenguolin/DiffSplat", facts.text, facts.part)
    image = ("chenguolin/DiffSplat", facts.image, facts.part)
    elevation = ("chenguolin/DiffSplat", "elevest_gobj265k_b_C25", None)
    assert folders_of(row, image=False) == {text} | shared
    assert folders_of(row, image=True) == {image, elevation} | shared
    controls = {("chenguolin/DiffSplat", folder, "controlnet") for folder in facts.controls.values()}
    everything = {(part.repository, part.folder, part.part) for part in every_component(name)}
    assert everything == {text, image} | controls | shared


TRAINED_FROM = {
    "sd15": {("madebyollin/taesd", "")},
    "pixart-sigma": {("madebyollin/taesdxl", ""), ("madebyollin/sdxl-vae-fp16-fix", "")},
    "sd35m": {("madebyollin/taesd3", "")},
}


@pytest.mark.parametrize("name", FACTS)
def test_what_training_starts_from(name: str):
    row = BACKBONES[name]
    base = {*row.base_folders, "unet" if name == "sd15" else "transformer"}
    found = {(part.repository, part.folder) for part in training_components(name)}
    assert found == {(FACTS[name].base, folder) for folder in base} | TRAINED_FROM[name]
    assert {trained_from(repository) for repository, _ in found} == {name}
