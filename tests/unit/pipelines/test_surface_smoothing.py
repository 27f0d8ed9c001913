"""Cleaning of generated grids."""

import math

import numpy as np
import pytest
import torch

from diffsplat.core import SplatGrid
from diffsplat.core.splat_grid import DEPTH, OPACITY, RGB, SCALE, encode_scale
from diffsplat.geometry import orbit_cameras
from diffsplat.pipelines import surface_smoothing
from diffsplat.render import render

SIZE = 48
CAMERAS = orbit_cameras([0.0], 20.0, width=SIZE, height=SIZE).for_objects(1)


def clean_surfaces(before: SplatGrid, deviation: float) -> SplatGrid:
    return surface_smoothing.clean_surfaces(before, CAMERAS, deviation)


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


@pytest.mark.parametrize("width", [1, 2, 3, 12])
def test_a_bar_is_as_wide_as_its_pixels_from_its_own_camera(width: int) -> None:
    """Thin legs do not vanish, and Gaussians that reach over an edge do not fatten it."""
    opacity = torch.full((SIZE, SIZE), -1.0)
    opacity[:, 20 : 20 + width] = 1.0
    cleaned = clean_surfaces(grid(opacity, torch.tensor(0.0)), 2.5)
    alpha = render(cleaned.to_splats(CAMERAS), CAMERAS, normals=False).alpha[0, 0, 0, 4:-4]
    assert (alpha > 0.5).sum(dim=1).tolist() == [width] * len(alpha)


def test_noise_of_colours_goes_and_edges_stay() -> None:
    before = grid(torch.tensor(1.0), torch.tensor(0.0)).values
    before[:, :, RGB] = 0.1 * torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    before[:, :, RGB, :, 24:] += 0.8
    after = clean_surfaces(SplatGrid(before.clamp(-1, 1)), 3.0).values[0, 0, RGB]
    left, right = after[:, :, :22], after[:, :, 26:]
    assert float(left.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(right.mean()) == pytest.approx(0.8, abs=0.02)
    assert float(left.std()) < 0.03
    assert float(right.std()) < 0.03


@pytest.mark.parametrize("deviation", [1.0, 3.0, 5.0])
def test_a_checkerboard_of_colours_goes(deviation: float) -> None:
    before = grid(torch.tensor(1.0), torch.tensor(0.0)).values
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    before[:, :, RGB] = 0.1 * (((rows + columns) % 2) * 2.0 - 1)
    after = clean_surfaces(SplatGrid(before), deviation).values[0, 0, RGB, 8:-8, 8:-8]
    assert after.abs().max() < 0.01


def test_colours_of_what_is_not_there_do_not_count() -> None:
    opacity = torch.full((SIZE, SIZE), -1.0)
    opacity[:, :24] = 1.0
    before = grid(opacity, torch.tensor(0.0)).values
    before[:, :, RGB, :, :24], before[:, :, RGB, :, 24:] = 0.5, 0.55
    after = clean_surfaces(SplatGrid(before), 3.0).values[0, 0, RGB]
    assert (after[:, :, :20] - 0.5).abs().max() < 0.005


@pytest.mark.parametrize("deviation", [1.0, 2.5, 5.0])
def test_colours_are_means_weighted_by_likeness_pixel_by_pixel(deviation: float) -> None:
    values = 2 * torch.rand(2, 3, 12, 14, 17, generator=torch.Generator().manual_seed(3)) - 1
    values[:, :, RGB] *= 0.3
    cameras = orbit_cameras([0.0, 90.0, 180.0], 20.0, width=17, height=14).for_objects(2)
    found = surface_smoothing.clean_surfaces(SplatGrid(values), cameras, deviation).values[:, :, RGB]
    for expected, view in zip(
        found.flatten(0, 1).numpy(), values.flatten(0, 1).double().numpy(), strict=True
    ):
        opacity = np.clip(4 * (blurred(view[10], 0.3 * deviation) - 0.1), -1, 1)
        weight = (opacity + 1) / 2 + 1e-3
        color = view[:3]
        for share in (4 / 3, 2 / 3):
            color = likened(color, weight, deviation * share)
        np.testing.assert_allclose(expected, color, atol=1e-5)


def likened(color: np.ndarray, weight: np.ndarray, deviation: float) -> np.ndarray:
    """The bilateral mean of one view's colours ``[3, H, W]`` by its definition."""
    afar = blurred(color * weight, deviation / 3) / blurred(weight, deviation / 3)
    stride = max(1, int(deviation / 2))
    offsets = stride * np.arange(-int(2 * deviation / stride), int(2 * deviation / stride) + 1)
    distances = offsets[:, None] ** 2 + offsets**2
    mean = np.empty_like(color)
    for row, column in np.ndindex(*weight.shape):
        near = np.ix_(
            *(
                np.clip(place + offsets, 0, size - 1)
                for place, size in zip((row, column), weight.shape, strict=True)
            )
        )
        unlike = ((afar[:, *near] - afar[:, row, column, None, None]) ** 2).sum(axis=0)
        counts = weight[near] * np.exp(-distances / (2 * deviation**2) - unlike / (2 * 0.15**2))
        mean[:, row, column] = (color[:, *near] * counts).sum(axis=(1, 2)) / counts.sum()
    return mean


def blurred(image: np.ndarray, deviation: float) -> np.ndarray:
    """Gaussian mean of ``[..., H, W]`` up to three deviations, the border repeated."""
    reach = max(1, int(3 * deviation))
    bell = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * deviation**2))
    bordered = np.pad(image, [*[(0, 0)] * (image.ndim - 2), (reach, reach), (reach, reach)], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(bordered, (len(bell), len(bell)), axis=(-2, -1))
    return np.einsum("...ij,i,j->...", windows, bell, bell) / bell.sum() ** 2


def test_a_surface_is_covered_from_its_side_too() -> None:
    """A plane that runs away from its camera, seen from the side: as decoded it has holes."""
    depth = torch.linspace(-0.9, 0.9, SIZE).expand(SIZE, SIZE)
    before = grid(torch.tensor(1.0), depth)
    side = orbit_cameras([60.0], 20.0, width=SIZE, height=SIZE).for_objects(1)
    alphas = [
        float(render(shown.to_splats(CAMERAS), side, normals=False).alpha[0, 0, 0, 20:28, 20:28].min())
        for shown in (SplatGrid(_small(before.values)), clean_surfaces(before, 1.0))
    ]
    assert alphas[0] < 0.7
    assert alphas[1] > 0.9


def test_nothing_bridges_a_jump_in_depth() -> None:
    depth = torch.full((SIZE, SIZE), -0.6)
    depth[:, 24:] = 0.6
    after = clean_surfaces(grid(torch.tensor(1.0), depth), 1.0).values[0, 0]
    between = after[DEPTH, 10].abs().squeeze() < 0.3
    assert between.any()
    assert (after[OPACITY, 10].squeeze()[between] == -1).all()
    flat = torch.tensor([5, 40])
    assert (after[OPACITY, 10].squeeze()[flat] == 1).all()


def _small(values: torch.Tensor) -> torch.Tensor:
    """Gaussians of half a pixel."""
    values = values.clone()
    values[:, :, SCALE] = encode_scale(torch.full_like(values[:, :, SCALE], 0.01))
    return values


def test_no_smoothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"smoothing is 0.0, expected a positive number"):
        clean_surfaces(grid(torch.tensor(1.0), torch.tensor(0.0)), 0.0)
