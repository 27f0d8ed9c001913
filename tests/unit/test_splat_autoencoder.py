"""The linear encoder and the decoder of the embedded model's autoencoder."""

import pytest
import torch

from diffsplat.core import SplatGrid
from diffsplat.core.splat_grid import OPACITY
from diffsplat.models.component_autoencoder import GSAutoencoder

SIZE = 16
PATCH = 4
VALUES = 12 * PATCH * PATCH


def opaque_grids(count: int, seed: int = 0) -> SplatGrid:
    values = torch.rand(count, 4, 12, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 1.8 - 0.9
    values[:, :, OPACITY] = 1.0
    return SplatGrid(values)


def autoencoder(latent_channels: int = VALUES, **options: float) -> GSAutoencoder:
    torch.manual_seed(0)
    settings = {"decoder_patch": 2, "decoder_blocks": 1} | options
    return GSAutoencoder(image_size=SIZE, patch=PATCH, latent_channels=latent_channels, dim=64, **settings)


@pytest.mark.parametrize("decoder_patch", [1, 2, 4])
def test_all_components_lose_nothing_before_training(decoder_patch: int) -> None:
    network = autoencoder(decoder_patch=decoder_patch)
    grids = opaque_grids(24)
    network.fit_components([grids])
    again = network.decode(network.encode(grids))
    torch.testing.assert_close(again.values, grids.values, atol=2e-4, rtol=0)


@pytest.mark.parametrize("deviation", [1.0, 0.42])
def test_latents_have_the_deviation_that_was_asked_for(deviation: float) -> None:
    network = autoencoder(40, latent_deviation=deviation)
    grids = opaque_grids(24)
    network.fit_components([grids])
    latents = network.encode(grids)
    assert latents.shape == (24, *network.latent_shape)
    assert float(latents.square().mean().sqrt()) == pytest.approx(deviation, rel=1e-3)


def test_components_are_those_of_the_singular_value_decomposition() -> None:
    network = autoencoder(5)
    grids = opaque_grids(24)
    network.fit_components([grids])
    patches = network.patches(grids).flatten(0, 1).double()
    _, _, directions = torch.linalg.svd(patches - patches.mean(dim=0), full_matrices=False)
    overlap = (network.components.double() @ directions[:5].mT).abs()
    torch.testing.assert_close(overlap, torch.eye(5, dtype=torch.float64), atol=1e-2, rtol=0)


def test_decoder_sees_the_latents_of_a_token_together() -> None:
    """A trained decoder changes the whole square of patches that a latent shares a token with."""
    network = autoencoder(8, decoder_patch=2)
    network.fit_components([opaque_grids(24)])
    assert network.decoder is not None
    torch.nn.init.normal_(network.decoder.out.weight, std=0.1)
    for block in network.decoder.transformer.blocks:  # no attention, so that tokens do not hear of each other
        torch.nn.init.zeros_(block.get_submodule("attn.wo").weight)
    latents = torch.zeros(1, *network.latent_shape)
    moved = latents.clone()
    moved[0, 1, :, 3, 0] = 1.0
    change = (network.reconstruct(moved) - network.reconstruct(latents)).abs().sum(dim=2)[0]
    patches = change.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).sum(dim=(-1, -2)) > 0
    expected = torch.zeros(4, 4, 4, dtype=torch.bool)
    expected[1, 2:, :2] = True
    assert torch.equal(patches, expected)


def test_without_a_decoder_only_the_components_remain() -> None:
    network = autoencoder(8, decoder_blocks=0)
    assert not list(network.parameters())
    grids = opaque_grids(24)
    network.fit_components([grids])
    patches = network.patches(grids).flatten(0, 1).double()
    centered = patches - patches.mean(dim=0)
    lost = centered - centered @ network.components.double().mT @ network.components.double()
    error = network.patches(
        SplatGrid(network.reconstruct(network.encode(grids)).clamp(-1, 1))
    ) - network.patches(grids)
    assert float(error.double().square().sum()) <= float(lost.square().sum()) * 1.001


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_patch": 3}, "16 pixels cannot be cut into patches of 4 x 3"),
        ({"latent_deviation": 0.0}, "latent_deviation is 0.0, expected a positive number"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        autoencoder(**options)


def test_latents_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"latents have shape \(1, 4, 8, 4, 2\)"):
        autoencoder(8).reconstruct(torch.zeros(1, 4, 8, 4, 2))
