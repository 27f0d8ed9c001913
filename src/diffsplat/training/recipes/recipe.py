"""Recipes: the stages of a model, their networks and optimisers, and how what comes out is sampled."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from diffsplat.pretrained.backbones import Sampler
from diffsplat.pretrained.model_folders import DEFAULT_SHIFT, SamplingDefaults
from diffsplat.training.config_checks import require
from diffsplat.training.stages.stage_recipe import StageRecipe

Flat = tyro.conf.arg(name="")

NETWORKS = {
    "reconstruction": "reconstructor",
    "autoencoder": "autoencoder",
    "diffusion": "denoiser",
    "refiner": "refiner",
}
"""Network that a stage makes, by the name of the stage: also the network's folder in a model."""


@dataclass(frozen=True)
class SamplingRecipe:
    """How a model is sampled unless its user says otherwise.

    Args:
        defaults: what goes into the model's index.
        shift: of the noise levels towards noise, 1 for none (Esser et al. 2024, section 5.3.2).
        sampler: how it is stepped from noise level to noise level.
    """

    defaults: Annotated[SamplingDefaults, Flat] = field(default_factory=SamplingDefaults)
    shift: float = DEFAULT_SHIFT
    sampler: Sampler = "euler"

    def __post_init__(self) -> None:
        steps, smoothing = self.defaults.steps, self.defaults.smoothing
        below = self.defaults.refined_below
        prediction = self.defaults.prediction
        require(steps >= 1, "steps", steps, "at least 1")
        require(self.shift > 0, "shift", self.shift, "a number above 0")
        require(smoothing >= 0, "smoothing", smoothing, "at least 0")
        require(0 <= below < 1, "refined_below", below, "a level from 0, for no refiner, to below 1")
        require(prediction == "latents", "prediction", prediction, "latents, which the stages train")


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
    """

    name: tyro.conf.Suppress[str]
    summary: tyro.conf.Suppress[str]
    stages: Annotated[Mapping[str, StageRecipe], Flat]
    sampling: SamplingRecipe
