"""Every recipe of a single network but the denoisers: three steps with tiny networks, and its files open again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.models.splat_vae import SplatVAE
from diffsplat.training.recipes import network_recipes
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.image_autoencoder_stage import ImageAutoencoderConfig
from diffsplat.training.stages.stage_recipe import GradientTraining, train_stage

pytest.importorskip("trimesh")

SIZE = 32
TRAINER = {
    "steps": 3,
    "log_every": 1,
    "evaluate_every": 0,
    "precision": "fp32",
    "device": "cpu",
    "accumulation": 1,
    "tracker": "none",
}
IMAGE_VAE = ImageAutoencoderConfig(widths=(4, 8), latent_channels=3, norm_groups=2, crop=16)


def shortened(name: str, **stage: Any) -> GradientTraining:
    """A recipe of three steps and small batches, with some options of its stage changed."""
    recipe = network_recipes()[name].stage
    assert isinstance(recipe, GradientTraining)
    source: Any = recipe.source
    return replace(
        recipe,
        stage=replace(recipe.stage, **stage),
        source=replace(source, batch_size=1, evaluation_objects=1),
        trainer=replace(recipe.trainer, **TRAINER),
    )


@pytest.fixture(scope="module")
def reconstructor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("reconstructor")
    GSRecon(dim=32, blocks=1, heads=2, parametrization="residual", pixel_grid="center").save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def image_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("image-vae")
    IMAGE_VAE.network().save_pretrained(folder)
    return folder


def test_image_autoencoder_small(data: Path, tmp_path: Path):
    recipe = replace(shortened("image-autoencoder-small"), stage=IMAGE_VAE)
    outcome = train_stage(recipe, StageFolders((data,), tmp_path))
    assert outcome.status == "finished"
    vae = AutoencoderKL.from_pretrained(tmp_path / "weights")
    assert vae.config["scaling_factor"] != AutoencoderKL().config["scaling_factor"]


def test_autoencoder_small(data: Path, reconstructor: Path, image_vae: Path, tmp_path: Path):
    folders = StageFolders((data,), tmp_path, reconstructor=reconstructor, image_autoencoder=image_vae)
    outcome = train_stage(shortened("autoencoder-small", image_size=SIZE), folders)
    assert outcome.status == "finished"
    trained = SplatVAE.from_pretrained(tmp_path / "weights")
    assert (trained.latent_shape, trained.pixel_grid) == ((4, 3, 16, 16), "center")
