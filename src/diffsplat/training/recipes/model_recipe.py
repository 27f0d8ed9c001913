"""Recipes: the stages of a model, their networks and optimisers, and how what comes out is sampled."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, get_args

import tyro

from diffsplat.errors import require, require_at_least
from diffsplat.pretrained.model_folders import (
    DEFAULT_SHIFT,
    TEXT_DENOISER,
    SamplingDefaults,
    controlnet_folder,
)
from diffsplat.pretrained.release_catalogue import ControlKind, Sampler
from diffsplat.training.stages.stage_recipe import Flat, StageRecipe

NETWORKS = {
    "reconstruction": "reconstructor",
    "image-autoencoder": "image_encoder",
    "autoencoder": "autoencoder",
    "condition": "condition_encoder",
    "diffusion": "denoiser",
    "refiner": "refiner",
    "text-diffusion": TEXT_DENOISER,
    "few-step": "few_step_solver",
    "image-diffusion": "image_denoiser",
    "elevation": "elevation_estimator",
    **{name: name for name in map(controlnet_folder, get_args(ControlKind))},
}
"""Network that a stage makes, by the name of the stage: also the network's folder in a model."""

IMAGE_STAGES = ("image-autoencoder", "image-diffusion", "elevation")
"""Stages of what generates from an image."""


@dataclass(frozen=True)
class SamplingRecipe:
    """How a model is sampled unless its user says otherwise.

    Args:
        defaults: what goes into the model's index.
        shift: of the noise levels towards noise, 1 for none (Esser et al. 2024, section 5.3.2).
        sampler: how it is stepped from noise level to noise level.
        image_steps: denoising steps of what generates from an image or a control map; as many as of text by default.
        image_guidance: guidance scale of what generates from an image.
        image_refiner_guidance: that of its refiner.
        image_projection: let the first view take over what an image or a control map shows of it.

    Raises:
        ValueError: for a number out of range, or a prediction that the sampler cannot use.
    """

    defaults: Annotated[SamplingDefaults, Flat] = field(default_factory=SamplingDefaults)
    shift: float = DEFAULT_SHIFT
    sampler: Sampler = "euler"
    image_steps: int | None = None
    image_guidance: float = 2.0
    image_refiner_guidance: float = 2.0
    image_projection: bool = False

    def __post_init__(self) -> None:
        steps, smoothing = self.defaults.steps, self.defaults.smoothing
        below = self.defaults.refined_below
        prediction, known = self.defaults.prediction, ("latents", "v_prediction")
        require(steps >= 1, "steps", steps, "at least 1")
        require(self.shift > 0, "shift", self.shift, "a number above 0")
        require(smoothing >= 0, "smoothing", smoothing, "at least 0")
        require(0 <= below < 1, "refined_below", below, "a level from 0, for no refiner, to below 1")
        require(prediction in known, "prediction", prediction, " or ".join(known))
        require_at_least(0, self, "image_guidance", "image_refiner_guidance")
        require(
            self.image_steps is None or self.image_steps >= 1, "image_steps", self.image_steps, "at least 1"
        )

    def image_defaults(self, *, refined: bool) -> SamplingDefaults:
        """How it is sampled from an image or a control map, with the refiner of text, or without any."""
        guided = replace(
            self.defaults,
            steps=self.defaults.steps if self.image_steps is None else self.image_steps,
            guidance=self.image_guidance,
            guided_below=1.0,
            projection=self.image_projection,
        )
        if refined:
            return replace(guided, refiner_guidance=self.image_refiner_guidance)
        return replace(guided, refined_below=0.0, refiner_guidance=1.0)


@dataclass(frozen=True)
class NetworkRecipe:
    """How one network is trained by itself.

    Args:
        name: what ``diffsplat train`` knows it by.
        summary: one line on the network.
        stage: how it is trained.
    """

    name: str
    summary: str
    stage: StageRecipe


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what kind of model comes out.

    Args:
        name: what ``diffsplat train`` knows it by.
        summary: one line on the model.
        stages: by name, in the order in which they run.
        sampling: how the model is sampled.
        image: also train what generates from an image: an autoencoder of images, a denoiser that starts from that of
            text, and the elevation network.
        controls: also train a ControlNet for each of these kinds of maps.

    Raises:
        ValueError: for images or controls that the model cannot be trained for.
    """

    name: tyro.conf.Suppress[str]
    summary: tyro.conf.Suppress[str]
    stages: Annotated[Mapping[str, StageRecipe], Flat]
    sampling: SamplingRecipe
    image: bool = False
    controls: tuple[ControlKind, ...] = ()

    def __post_init__(self) -> None:
        able = self.takes_images_with_another_denoiser or not self.image
        require(
            able, "image", self.image, f"no image, for which the model {self.name} has no denoiser of its own"
        )
        able = all(controlnet_folder(kind) in self.stages for kind in self.controls)
        require(able, "controls", self.controls, f"none, as the model {self.name} has no ControlNets")

    @property
    def takes_images_with_another_denoiser(self) -> bool:
        """Whether what generates from an image is trained apart, where it is asked for."""
        return all(name in self.stages for name in IMAGE_STAGES)

    def trained_stages(self) -> dict[str, StageRecipe]:
        """Those that the model needs: a refiner only where it is sampled with one."""
        left_out = {controlnet_folder(kind) for kind in get_args(ControlKind) if kind not in self.controls}
        if self.takes_images_with_another_denoiser and not self.image:
            left_out.update(IMAGE_STAGES)
        if self.sampling.defaults.refined_below == 0:
            left_out.add("refiner")
        return {name: stage for name, stage in self.stages.items() if name not in left_out}
