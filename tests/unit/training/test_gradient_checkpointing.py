"""Checkpointed blocks give the same gradients and keep less."""

import copy

import pytest
import torch
from torch import Tensor, nn

from diffsplat.errors import InvalidInputError
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.models.splat_vae import SplatVAE
from diffsplat.training.gradient_checkpointing import checkpoint_activations
from support.tiny_denoisers import tiny_denoiser


def kept_bytes(network: nn.Module, tokens: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass, which is done as well."""
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = network(tokens).square().mean()
    loss.backward()
    return kept


def test_gradients_stay_and_activations_go() -> None:
    torch.manual_seed(0)
    plain = GSRecon(dim=32, blocks=4, heads=2).transformer
    for parameter in plain.parameters():
        nn.init.normal_(parameter, std=0.2)
    lean = copy.deepcopy(plain)
    checkpoint_activations(lean)
    assert lean.state_dict().keys() == plain.state_dict().keys()
    tokens = torch.randn(2, 16, 32)
    assert kept_bytes(lean, tokens) < 0.5 * kept_bytes(plain, tokens)
    for one, other in zip(plain.parameters(), lean.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-9)


def test_networks_of_diffusers_checkpoint_themselves() -> None:
    network = tiny_denoiser("pixart")
    checkpoint_activations(network)
    assert network.is_gradient_checkpointing


def test_an_autoencoder_checkpoints_the_network_of_diffusers_in_it() -> None:
    """Its middle blocks have lists of no attention."""
    torch.manual_seed(0)
    sizes = {"block_out_channels": (8, 8), "norm_num_groups": 2, "mid_block_add_attention": False}
    plain = SplatVAE({**sizes, "latent_channels": 4}, (), (), 16).train()
    lean = copy.deepcopy(plain)
    checkpoint_activations(lean)
    latents = torch.randn(1, 4, 4, 8, 8)
    decoded = [network.reconstruct(latents) for network in (plain, lean)]
    for images in decoded:
        images.square().mean().backward()
    for one, other in zip(plain.vae.decoder.parameters(), lean.vae.decoder.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-9)
    assert lean.vae.is_gradient_checkpointing


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="Linear has no blocks"):
        checkpoint_activations(nn.Linear(2, 2))
