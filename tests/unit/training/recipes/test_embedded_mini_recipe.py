"""The recipe ``mini`` makes the model that ships."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.resources import files
from typing import Any

import pytest
import torch

from diffsplat.data.mesh_ingestion import RenderOptions
from diffsplat.errors import InvalidInputError
from diffsplat.models.network_base_class import BaseNetwork
from diffsplat.pretrained.model_folders import SamplingDefaults
from diffsplat.pretrained.schedulers import make_scheduler
from diffsplat.training.recipes.embedded_mini_recipe import MINI, TEXT_DIFFUSION_MINI
from diffsplat.training.recipes.model_recipe import NETWORKS, SamplingRecipe
from diffsplat.training.stages.denoiser_configs import MiniDenoiserConfig
from diffsplat.training.stages.diffusion_stage import DiffusionConfig
from diffsplat.training.stages.elevation_stage import MiniElevationStageConfig
from diffsplat.training.stages.principal_component_fit import ComponentFit, ConditionFit
from diffsplat.training.stages.reconstruction_stage import ReconstructionConfig
from diffsplat.training.stages.stage_recipe import GradientTraining

NETWORKS_OF_MINI = [*(NETWORKS[stage] for stage in MINI.stages), "text_denoiser"]


def shipped(file: str) -> dict[str, Any]:
    return json.loads((files("diffsplat") / "weights" / "mini" / file).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def networks() -> dict[str, BaseNetwork]:
    """The untrained networks of the recipe, without memory for weights."""
    reconstruction, autoencoder, condition, diffusion, refiner, elevation = MINI.stages.values()
    assert isinstance(reconstruction, GradientTraining)
    assert isinstance(reconstruction.stage, ReconstructionConfig)
    assert isinstance(autoencoder, ComponentFit)
    with torch.device("meta"):
        fitted = autoencoder.network(RenderOptions().size)
        made: dict[str, Any] = {"reconstructor": reconstruction.stage.network(), "autoencoder": fitted}
        assert isinstance(condition, ConditionFit)
        made["condition_encoder"] = condition.network(RenderOptions().size)
        assert isinstance(elevation, GradientTraining)
        assert isinstance(elevation.stage, MiniElevationStageConfig)
        made["elevation_estimator"] = elevation.stage.network()
        denoisers = {"denoiser": diffusion, "refiner": refiner, "text_denoiser": TEXT_DIFFUSION_MINI.stage}
        for name, recipe in denoisers.items():
            assert isinstance(recipe, GradientTraining)
            assert isinstance(recipe.stage, DiffusionConfig)
            assert isinstance(recipe.stage.network, MiniDenoiserConfig)
            made[name] = recipe.stage.network.untrained(fitted)
    return made


@pytest.mark.parametrize("name", NETWORKS_OF_MINI)
def test_networks_are_those_that_ship(networks: dict[str, BaseNetwork], name: str) -> None:
    """The files may hold more: what diffusers' class of the network could vary and this one cannot."""
    stored = shipped(f"{name}/config.json")
    config = json.loads(json.dumps(dict(networks[name].config)))
    assert {key: stored.get(key) for key in config} == config


def test_stages_run_in_the_order_of_their_needs() -> None:
    assert list(MINI.stages) == [
        *("reconstruction", "autoencoder", "condition", "diffusion", "refiner", "elevation")
    ]


def test_sampling_is_that_of_the_model_that_ships() -> None:
    index = shipped("model_index.json")
    image = index.pop("image")
    stored = {key: value for key, value in index.items() if key[0] != "_" and not isinstance(value, list)}
    assert asdict(MINI.sampling.defaults) == stored
    assert asdict(MINI.sampling.image_defaults(refined=True)) == image


def test_scheduler_is_that_of_the_model_that_ships() -> None:
    stored = shipped("scheduler/scheduler_config.json")
    sampling = MINI.sampling
    scheduler = make_scheduler(sampling.sampler, {"shift": sampling.shift}, sampling.defaults.prediction)
    assert {key: stored.get(key) for key in scheduler.config} == dict(scheduler.config)


def test_text_is_embedded_as_wide_as_the_denoisers_read_it() -> None:
    width = shipped("text_encoder/config.json")["bert"]["hidden_size"]
    for name in ("diffusion", "refiner"):
        recipe = MINI.stages[name]
        assert isinstance(recipe, GradientTraining)
        assert isinstance(recipe.stage, DiffusionConfig)
        assert isinstance(recipe.stage.network, MiniDenoiserConfig)
        assert recipe.stage.network.text_channels == width


def test_refiner_is_trained_up_to_the_level_that_it_takes_over_at() -> None:
    recipe = MINI.stages["refiner"]
    assert isinstance(recipe, GradientTraining)
    assert isinstance(recipe.stage, DiffusionConfig)
    assert isinstance(recipe.stage.network, MiniDenoiserConfig)
    assert MINI.sampling.defaults.refined_below <= recipe.stage.network.greatest_level < 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SamplingRecipe(SamplingDefaults(steps=0)), "steps is 0, expected at least 1"),
        (lambda: SamplingRecipe(SamplingDefaults(smoothing=-1)), "smoothing is -1, expected at least 0"),
        (
            lambda: SamplingRecipe(SamplingDefaults(refined_below=1.0)),
            r"refined_below is 1\.0, expected a level",
        ),
        (
            lambda: SamplingRecipe(SamplingDefaults(prediction="flow")),
            "prediction is flow, expected latents or v_",
        ),
        (lambda: SamplingRecipe(image_steps=0), r"image_steps is 0, expected at least 1"),
        (lambda: SamplingRecipe(shift=0.0), r"shift is 0\.0, expected a number above 0"),
        (lambda: MiniDenoiserConfig(greatest_level=0.0), r"greatest_level is 0\.0, expected a level above 0"),
        (lambda: MiniDenoiserConfig(channels=-1), "channels is -1, expected a number of channels"),
    ],
)
def test_impossible_recipes_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make()


def test_images_take_as_many_steps_as_text_unless_the_recipe_says() -> None:
    recipe = SamplingRecipe(SamplingDefaults(steps=30))
    assert recipe.image_defaults(refined=True).steps == 30
    assert replace(recipe, image_steps=8).image_defaults(refined=True).steps == 8
