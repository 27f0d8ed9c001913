"""The linear encoder and decoder of the embedded model's autoencoder."""

import pytest
import torch

from diffsplat.core import SplatGrid
from diffsplat.core.splat_grid import OPACITY
from diffsplat.models.principal_component_autoencoder import ComponentAutoencoder

SIZE = 16
PATCH = 4
VALUES = 12 * PATCH * PATCH


def opaque_grids(count: int, seed: int = 0) -> SplatGrid:
    values = torch.rand(count, 4, 12, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 1.8 - 0.9
    values[:, :, OPACITY] = 1.0
    return SplatGrid(values)


def autoencoder(latent_channels: int = VALUES, **options: float) -> ComponentAutoencoder:
    torch.manual_seed(0)
    return ComponentAutoencoder(
        **{"image_size": SIZE, "patch": PATCH, "latent_channels": latent_channels} | options
    )


def test_all_components_lose_nothing() -> None:
    network = autoencoder()
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


def test_what_is_lost_is_what_the_components_leave_out() -> None:
    network = autoencoder(8)
    assert not list(network.parameters())
    grids = opaque_grids(24)
    network.fit_components([grids])
    patches = network.patches(grids).flatten(0, 1).double()
    centered = patches - patches.mean(dim=0)
    lost = centered - centered @ network.components.double().mT @ network.components.double()
    error = network.patches(network.decode(network.encode(grids))) - network.patches(grids)
    assert float(error.double().square().sum()) <= float(lost.square().sum()) * 1.001


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 3}, "16 pixels cannot be cut into patches of 3"),
        ({"latent_deviation": 0.0}, "latent_deviation is 0.0, expected a positive number"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        autoencoder(**options)


def test_a_view_alone_has_the_latents_and_the_grid_that_it_has_among_all() -> None:
    grids = opaque_grids(2)
    network = autoencoder()
    network.fit_components([grids])
    latents = network.encode(grids)
    alone = network.encode_views(SplatGrid(grids.values[:, 1:2]))
    torch.testing.assert_close(alone, latents[:, 1:2])
    torch.testing.assert_close(
        network.decode_views(latents[:, 1:2]).values, network.decode(latents).values[:, 1:2]
    )


def test_channels_that_are_not_given_have_their_mean() -> None:
    grids = opaque_grids(4)
    network = autoencoder()
    network.fit_components([grids])
    latents = network.encode(grids)
    with_zeros = latents.clone()
    with_zeros[:, :, 3:] = 0
    found = network.decode(latents[:, :, :3]).values
    torch.testing.assert_close(found, network.decode(with_zeros).values)
    assert not torch.allclose(found, network.decode(latents).values, atol=1e-2)


def test_latents_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"latents have shape \(1, 4, 8, 4, 2\)"):
        autoencoder(8).decode(torch.zeros(1, 4, 8, 4, 2))


def test_autocast_does_not_round_latents_and_grids() -> None:
    network = autoencoder(8)
    grids = opaque_grids(4)
    network.fit_components([grids])
    plain = network.encode(grids)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network.encode(grids)
        decoded = network.decode(mixed)
    assert torch.equal(mixed, plain)
    assert torch.equal(decoded.values, network.decode(plain).values)
