"""Initial networks compute what the networks they come from compute."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import Tensor

from diffsplat.core import SplatGrid
from diffsplat.models.denoiser_families import VARIANTS, Variant
from diffsplat.models.denoiser_forward_pass import control_residuals, network_output
from diffsplat.models.multiview_attention import set_multiview_attention
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.models.text.text_condition import TextCondition
from diffsplat.pretrained.released_networks import load_denoiser
from diffsplat.training.network_initialisation import (
    add_tiny_decoder,
    controlnet_from_unet,
    initialise_reconstructor,
    splat_vae_from_image_vae,
    widen_denoiser,
    widen_input,
)
from support.tiny_denoisers import tiny_denoiser

LATENTS = {"unet": 4, "pixart": 4, "sd3": 16}
BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}


@torch.no_grad()
def output_of(network: Any, inputs: Tensor) -> Tensor:
    torch.manual_seed(5)
    text = TextCondition(torch.randn(2, 5, 8), pooled=torch.randn(2, 8))
    return network_output(network, inputs, torch.tensor([7, 300]), text)


@pytest.mark.parametrize("kind", LATENTS)
def test_a_widened_denoiser_is_the_same_function_of_the_latents(kind: str):
    network, latents = tiny_denoiser(kind), torch.randn(2, 1, LATENTS[kind], 4, 4)
    expected = output_of(network, latents)
    for image, added in ((False, 6), (True, 7)):
        widen_denoiser(network, LATENTS[kind], image=image)
        inputs = torch.cat([latents, torch.randn(2, 1, added, 4, 4)], dim=2)
        assert torch.equal(output_of(network, inputs), expected)


@pytest.mark.parametrize("kind", LATENTS)
def test_a_widened_denoiser_is_saved_and_loaded_again(kind: str, tmp_path: Path):
    network = tiny_denoiser(kind)
    widen_denoiser(network, LATENTS[kind], image=True)
    network.save_pretrained(tmp_path)
    inputs = torch.randn(2, 1, LATENTS[kind] + 7, 4, 4)
    assert torch.equal(output_of(load_denoiser(tmp_path), inputs), output_of(network, inputs))


def test_input_channels_are_never_removed():
    with pytest.raises(ValueError, match="cannot widen 4 input channels to 3"):
        widen_input(torch.zeros(2, 4, 3, 3), 3)


def make_image_vae(variant: Variant) -> AutoencoderKL:
    torch.manual_seed(2)
    sizes = {"block_out_channels": (4, 8), "layers_per_block": 1, "norm_num_groups": 2}
    return AutoencoderKL(**BLOCKS, **sizes, **VARIANTS[variant])


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_every_triple_of_channels_is_decoded_as_colours(variant: Variant):
    image_vae = make_image_vae(variant).eval()
    splat_vae = splat_vae_from_image_vae(image_vae, image_size=16).eval()
    latents = torch.randn(1, 4, splat_vae.latent_channels, 8, 8)
    unscaled = latents[0] / splat_vae.scaling_factor + splat_vae.shift_factor
    colours = image_vae.decode(unscaled, return_dict=False)[0]
    decoded = splat_vae.reconstruct(latents)[0]
    torch.testing.assert_close(decoded, colours.repeat(1, 4, 1, 1))
    assert splat_vae.tiny_decoder is None


@torch.no_grad()
def test_channels_are_encoded_as_their_sum_over_the_triples():
    """The first convolution is repeated and not divided: it sees the sum of the four triples."""
    image_vae = make_image_vae("sd").eval()
    splat_vae = splat_vae_from_image_vae(image_vae, image_size=16).eval()
    values = torch.rand(1, 4, 12, 16, 16) * 0.5 - 0.25
    summed = values[0].unflatten(1, (4, 3)).sum(dim=1)
    expected = image_vae.encode(summed, return_dict=False)[0].mode()
    torch.testing.assert_close(splat_vae.posterior(SplatGrid(values)).mode(), expected)


@torch.no_grad()
def test_the_tiny_decoder_is_that_of_the_tiny_autoencoder():
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(4, 4),
        decoder_block_out_channels=(4, 4),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(2, 1),
    ).eval()
    splat_vae = add_tiny_decoder(splat_vae_from_image_vae(make_image_vae("sd"), image_size=16), tiny)
    assert splat_vae.tiny_decoder is not None
    latents = torch.randn(2, 4, 8, 8)
    expected = tiny.decoder(latents).repeat(1, 4, 1, 1)
    torch.testing.assert_close(splat_vae.tiny_decoder(latents), expected)


def test_autoencoders_of_other_than_colours_are_refused():
    with pytest.raises(ValueError, match="has 4 image channels, expected 3"):
        splat_vae_from_image_vae(
            AutoencoderKL(**BLOCKS, in_channels=4, block_out_channels=(32, 32)), image_size=16
        )


@torch.no_grad()
def test_a_fresh_controlnet_adds_nothing():
    unet = tiny_denoiser("unet")
    widen_denoiser(unet, 4)
    controlnet = controlnet_from_unet(unet)
    set_multiview_attention(controlnet, 2)
    inputs, text = torch.randn(2, 2, 10, 4, 4), TextCondition(torch.randn(2, 5, 8))
    control = torch.rand(2, 2, 3, 32, 32)
    residuals = control_residuals(controlnet, inputs, torch.tensor([1, 2]), text, control)
    assert not any(part.any() for part in (*residuals.down, residuals.middle))
    assert controlnet.config.in_channels == 10


def test_a_reconstructor_of_residuals_keeps_its_own_start():
    with pytest.raises(ValueError, match="parametrization is 'residual', expected 'absolute'"):
        initialise_reconstructor(GSRecon(dim=8, blocks=1, heads=1, parametrization="residual"))
