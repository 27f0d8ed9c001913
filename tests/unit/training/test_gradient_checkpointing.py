"""Checkpointed blocks give the same gradients and keep less."""

import copy

import pytest
import torch
from torch import Tensor, nn

from diffsplat.errors import InvalidInputError
from diffsplat.models.splat_reconstructor import GSRecon
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


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="Linear has no blocks"):
        checkpoint_activations(nn.Linear(2, 2))
