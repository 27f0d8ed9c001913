"""Cleaning of generated grids."""

import math

import pytest
import torch

from diffsplat.core import SplatGrid
from diffsplat.core.splat_grid import DEPTH, OPACITY
from diffsplat.pipelines.surfaces import clean_surfaces

SIZE = 48


def grid(opacity: torch.Tensor, depth: torch.Tensor) -> SplatGrid:
    values = torch.rand(1, 1, 12, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) - 0.5
    values[:, :, OPACITY] = opacity
    values[:, :, DEPTH] = depth
    return SplatGrid(values)


def test_noise_on_a_surface_falls_as_that_of_a_gaussian_mean() -> None:
    """The mean over a Gaussian window of deviation s leaves 1 / (2 s sqrt(pi)) of white noise's deviation."""
    noise = 0.1 * torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    cleaned = clean_surfaces(grid(torch.tensor(1.0), 0.3 + noise), 3.0)
    inner = cleaned.values[0, 0, DEPTH, 9:-9, 9:-9]
    assert float(inner.mean()) == pytest.approx(0.3, abs=0.01)
    assert float(inner.std()) == pytest.approx(0.1 / (2 * 3.0 * math.sqrt(math.pi)), rel=0.3)


def test_background_does_not_pull_at_depths() -> None:
    opacity, depth = torch.full((SIZE, SIZE), -1.0), torch.full((SIZE, SIZE), -0.8)
    opacity[:, :24], depth[:, :24] = 1.0, 0.3
    cleaned = clean_surfaces(grid(opacity, depth), 3.0).values[0, 0]
    torch.testing.assert_close(cleaned[DEPTH, :, :23], torch.full((1, SIZE, 23), 0.3), atol=0.05, rtol=0)
    assert (cleaned[OPACITY, :, :21] == 1).all()
    assert (cleaned[OPACITY, :, 27:] == -1).all()


def test_veils_become_surface_or_nothing_and_specks_go() -> None:
    opacity = torch.full((SIZE, SIZE), -0.4)
    opacity[:, :24] = 0.4
    opacity[10, 40] = 1.0
    cleaned = clean_surfaces(grid(opacity, torch.tensor(0.0)), 3.0).values[0, 0]
    assert (cleaned[OPACITY, :, :20] == 1).all()
    assert (cleaned[OPACITY, :, 28:] < -0.5).all()


def test_colours_scales_and_rotations_stay() -> None:
    before = grid(torch.rand(SIZE, SIZE), torch.rand(SIZE, SIZE))
    after = clean_surfaces(before, 1.0)
    assert torch.equal(after.values[:, :, : OPACITY.start], before.values[:, :, : OPACITY.start])


def test_no_smoothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"smoothing is 0.0, expected a positive number"):
        clean_surfaces(grid(torch.tensor(1.0), torch.tensor(0.0)), 0.0)
