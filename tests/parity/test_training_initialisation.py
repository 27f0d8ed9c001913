"""Recorded initial weights of the original's networks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.models.splat_vae import SplatVAE
from diffsplat.training.network_initialisation import (
    add_tiny_decoder,
    initialise_reconstructor,
    splat_vae_from_image_vae,
    widen_denoiser,
)
from support.tiny_denoisers import tiny_denoiser
from support.training_recordings import TrainingRecordings

LATENTS = {"unet": 4, "pixart": 4, "sd3": 16}


@pytest.fixture(scope="module")
def recorded(training: TrainingRecordings) -> dict[str, Tensor]:
    return training.tensors("widening")


def first_layer(network: Any) -> nn.Conv2d:
    return network.conv_in if isinstance(network, UNet2DConditionModel) else network.pos_embed.proj


@pytest.mark.parametrize("kind", LATENTS)
def test_text_denoisers(training: TrainingRecordings, recorded: dict[str, Tensor], kind: str):
    """Recorded is what was found of the new weights; the tensors ``widened`` were overwritten before they were kept."""
    facts = training.json("widening.json")[kind]["zero"]
    before = {part: recorded[f"{kind}.before.{part}"] for part in ("weight", "bias")}
    network = tiny_denoiser(kind, before["weight"].shape[0])
    others = {name: weight.clone() for name, weight in network.state_dict().items()}
    layer = first_layer(network)
    layer.load_state_dict(before)
    widen_denoiser(network, LATENTS[kind])
    assert layer.weight.shape == recorded[f"{kind}.widened.weight"].shape
    first, new = layer.weight.split([LATENTS[kind], 6], dim=1)
    assert torch.equal(first, before["weight"]) == facts["first_channels_copied"]
    assert (not new.any()) == facts["new_channels_all_zero"]
    assert torch.equal(layer.bias, recorded[f"{kind}.widened.bias"]) == facts["bias_copied"]
    same = {name for name, weight in network.state_dict().items() if torch.equal(weight, others[name])}
    assert len(others.keys() - same) == 2
    assert facts["other_keys_equal"]


@pytest.mark.parametrize("kind", LATENTS)
def test_image_denoisers(recorded: dict[str, Tensor], kind: str):
    text = recorded[f"{kind}.text_model.weight"]
    network = tiny_denoiser(kind, text.shape[0])
    widen_denoiser(network, LATENTS[kind])
    layer = first_layer(network)
    layer.load_state_dict({"weight": text}, strict=False)
    widen_denoiser(network, LATENTS[kind], image=True)
    assert torch.equal(layer.weight, recorded[f"{kind}.image_model.weight"])
    assert network.config.in_channels == layer.in_channels == LATENTS[kind] + 7


@pytest.fixture
def initialised(training: TrainingRecordings, recorded: dict[str, Tensor]) -> SplatVAE:
    image_vae = AutoencoderKL(**training.json("gsvae_sd_config.json"))
    for layer in ("encoder.conv_in", "decoder.conv_out"):
        parts = {kind: recorded[f"gsvae.before.{layer}.{kind}"] for kind in ("weight", "bias")}
        image_vae.get_submodule(layer).load_state_dict(parts)
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_decoder_blocks=(3, 3, 3, 1),
    )
    last = {kind: recorded[f"gsvae.before.tiny_decoder.last.{kind}"] for kind in ("weight", "bias")}
    list(tiny.decoder.layers)[-1].load_state_dict(last)
    return add_tiny_decoder(splat_vae_from_image_vae(image_vae, image_size=32), tiny)


def test_splat_autoencoder(recorded: dict[str, Tensor], initialised: SplatVAE):
    for layer in ("encoder.conv_in", "decoder.conv_out"):
        made: Any = initialised.vae.get_submodule(layer)
        assert torch.equal(made.weight, recorded[f"gsvae.after.{layer}.weight"])
        assert torch.equal(made.bias, recorded[f"gsvae.after.{layer}.bias"])
    assert initialised.tiny_decoder is not None
    last: Any = list(initialised.tiny_decoder.layers)[-1]
    assert torch.equal(last.weight, recorded["gsvae.after.tiny_decoder.last.weight"])
    assert torch.equal(last.bias, recorded["gsvae.after.tiny_decoder.last.bias"])


def test_reconstructor(training: TrainingRecordings, tmp_path: Path):
    facts: dict[str, dict[str, Any]] = training.json("widening.json")["gsrecon_initial"]
    network = GSRecon(dim=32, blocks=2, heads=4)
    torch.manual_seed(0)
    initialise_reconstructor(network)
    parameters = dict(network.named_parameters())
    shared = [name for name in facts if name in parameters]
    assert len(shared) > 20
    for name in shared:
        check_initial(name, parameters[name].detach(), facts[name])


def check_initial(name: str, weight: Tensor, fact: dict[str, Any]) -> None:
    if fact["zero"]:
        assert not weight.any(), name
    elif fact["one"]:
        assert (weight == 1).all(), name
    else:
        bound = fact["xavier_uniform_bound"]
        fan_out, fan_in = weight.shape
        assert bound == pytest.approx((6 / (fan_in + fan_out)) ** 0.5), name
        assert weight.abs().max() <= bound, name
        # A uniform distribution's deviation is its bound over the root of 3.
        assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.1), name
