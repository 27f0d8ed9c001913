"""Names, shapes and sizes of what the full-size recipes train, made without memory for weights.

The truth is the recorded lists of the original's networks, the stock networks in their public configurations, and the
published numbers of parameters.
"""

import json
from typing import Any, cast

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import nn
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from diffsplat.models.denoiser_families import VARIANTS, Variant
from diffsplat.models.elevation_network import ElevationConfig, ElevationEstimator
from diffsplat.models.splat_vae import FULL_SIZE
from diffsplat.training.network_initialisation import add_tiny_decoder, splat_vae_from_image_vae
from diffsplat.training.recipes import network_recipes
from diffsplat.training.recipes.paper_recipes import PAPER_NETWORKS
from diffsplat.training.stages.autoencoder_stage import train_only
from diffsplat.training.stages.elevation_stage import config_of_backbone
from diffsplat.training.stages.stage_recipe import GradientTraining
from diffsplat.training.view_batches import ViewSourceConfig
from support.recordings import OFFICIAL


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def trained(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters() if weight.requires_grad)


def recipe_of(name: str) -> GradientTraining:
    return cast(GradientTraining, network_recipes()[name].stage)


def test_reconstruction():
    stage: Any = recipe_of("reconstruction").stage
    with torch.device("meta"):
        network = stage.network()
    recorded = json.loads((OFFICIAL / "manifest.json").read_text())["gsrecon"]
    assert shapes(network) == {name: tuple(shape) for name, shape in recorded.items()}
    assert trained(network) == pytest.approx(41.8e6, rel=0.002)
    assert (network.parametrization, network.pixel_grid, network.image_size) == ("absolute", "legacy", 256)


@pytest.mark.parametrize("variant", VARIANTS)
def test_autoencoder_and_its_tiny_decoder(variant: Variant):
    facts = VARIANTS[variant]
    with torch.device("meta"):
        image_vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            **FULL_SIZE,
            **facts,
        )
        tiny = AutoencoderTiny(latent_channels=facts["latent_channels"])
        full = splat_vae_from_image_vae(image_vae)
        extended = add_tiny_decoder(full, tiny)
    expected = {f"vae.{name}": shape for name, shape in shapes(image_vae).items()}
    expected["vae.encoder.conv_in.weight"] = (128, 12, 3, 3)
    expected["vae.decoder.conv_out.weight"] = (12, 128, 3, 3)
    expected["vae.decoder.conv_out.bias"] = (12,)
    assert shapes(full) == expected
    assert trained(full) == pytest.approx(84e6, rel=0.02)
    expected |= {f"tiny_decoder.{name}": shape for name, shape in shapes(tiny.decoder).items()}
    assert "tiny_decoder.layers.18.weight" in expected
    expected["tiny_decoder.layers.18.weight"] = (12, 64, 3, 3)
    expected["tiny_decoder.layers.18.bias"] = (12,)
    assert shapes(extended) == expected
    train_only(extended, "tiny")
    assert trained(extended) == pytest.approx(1.2e6, rel=0.05)


def test_elevation():
    with torch.device("meta"):
        backbone = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(image_size=518, patch_size=14))
        network = ElevationEstimator(config_of_backbone(backbone))
        released = ElevationEstimator(ElevationConfig())
    # A parity test compares the names of this one with those of the recorded file.
    shapes = [
        {name: tensor.shape for name, tensor in each.released_state_dict().items()}
        for each in (network, released)
    ]
    assert shapes[0] == shapes[1]
    assert trained(network) == pytest.approx(86e6, rel=0.03)


def test_a_run_sees_each_object_thirty_times():
    for name in (row.name for row in PAPER_NETWORKS if row.name.startswith(("recon", "autoencoder", "tiny"))):
        recipe = recipe_of(name)
        source = cast(ViewSourceConfig, recipe.source)
        objects = 8 * source.batch_size * recipe.trainer.accumulation * recipe.trainer.steps
        assert objects / 265_232 == pytest.approx(30, rel=0.001)
        assert (source.composition, source.image_size) == ("released", 256)
