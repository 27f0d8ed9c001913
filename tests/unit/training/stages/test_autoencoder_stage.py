"""The loss of a splat autoencoder against formulas written out, and where the small one starts."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffsplat.core import SplatGrid, Views
from diffsplat.geometry import ring_cameras
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.training.rendered_view_loss import RenderedViewLoss, RenderedViewWeights, RenderingLossOptions
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.autoencoder_stage import (
    SmallAutoencoderConfig,
    SplatVaeLoss,
    SplatVaeStage,
    visibility,
)

SIZE = 8
CONFIG = SmallAutoencoderConfig(
    image_size=SIZE,
    widths=(4, 8),
    latent_channels=3,
    norm_groups=2,
    rendering=RenderingLossOptions(RenderedViewWeights()),
)


class DecodesTo(nn.Module):
    """A decoder that gives the same values for any latents."""

    pixel_grid = "center"

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values

    def reconstruct(self, _latents: Tensor, *, decoder: str = "full") -> Tensor:
        return self.values


def random_grid(seed: int, *, overshoot: float = 1.0) -> Tensor:
    torch.manual_seed(seed)
    return (torch.rand(2, 4, 12, SIZE, SIZE) * 2 - 1) * overshoot


def make_views() -> Views:
    torch.manual_seed(2)
    channels = {"image": 3, "mask": 1, "normal": 3, "coord": 3, "depth": 1}
    images = {name: torch.rand(2, 4, count, SIZE, SIZE) for name, count in channels.items()}
    return Views(**images, cameras=ring_cameras(size=SIZE).for_objects(2))


def weights_in_numpy(grid: np.ndarray) -> np.ndarray:
    channels = np.array([1.0] * 3 + [0.3] * 3 + [0.2] * 4 + [1.0] + [50.0])
    opacity = np.maximum(grid[:, :, 10:11] * 0.5 + 0.5, 0.02)
    shown = np.repeat(opacity, 12, axis=2)
    shown[:, :, 10] = 1
    return shown * (channels / channels.mean())[:, None, None]


def test_errors_count_as_much_as_renderings_show_of_them():
    grid = random_grid(0)
    np.testing.assert_allclose(visibility(SplatGrid(grid)).numpy(), weights_in_numpy(grid.numpy()), rtol=1e-5)


@pytest.mark.parametrize("kind", ["equal", "visible"])
def test_error_of_a_grid(kind: str):
    """Visible errors are those before values are clamped, so that a value beyond the range can come back."""
    grid, decoded = random_grid(0), random_grid(1, overshoot=1.5)
    loss = SplatVaeLoss(
        RenderedViewLoss(RenderedViewWeights()), grid_weight=3.0, grid_error=kind, rendering_from=6
    )
    losses = loss(DecodesTo(decoded), torch.zeros(2), SplatGrid(grid), make_views(), step=5)
    truth, made = grid.double().numpy(), decoded.double().numpy()
    if kind == "equal":
        expected = np.square(np.clip(made, -1, 1) - truth)
    else:
        expected = np.square(made - truth) * weights_in_numpy(truth)
    np.testing.assert_allclose(losses.total.numpy(), 3 * expected.mean(axis=(1, 2, 3, 4)), rtol=1e-5)


@pytest.mark.parametrize(("step", "rendered"), [(5, False), (6, True)])
def test_grids_are_rendered_from_a_step_on(step: int, rendered: bool):
    loss = SplatVaeLoss(RenderedViewLoss(RenderedViewWeights()), rendering_from=6)
    losses = loss(DecodesTo(random_grid(1)), torch.zeros(2), SplatGrid(random_grid(0)), make_views(), step)
    assert ("rgb" in losses.terms) == rendered
    assert bool((losses.total > losses.terms["grid"]).all()) == rendered


def small_stage(**options: float) -> SplatVaeStage:
    torch.manual_seed(0)
    reconstructor = GSRecon(dim=16, blocks=1, heads=1, image_size=SIZE, patch=4, pixel_grid="center")
    config = SmallAutoencoderConfig(**{**vars(CONFIG), **options})
    return SplatVaeStage(config, reconstructor, config.network(StageFolders((), Path()), "center"))


def test_the_divergence_of_the_latents_counts_as_much_as_asked_for():
    totals = []
    for weight in (0.0, 0.5):
        stage = small_stage(kl_weight=weight)
        torch.manual_seed(1)
        totals.append(stage(make_views(), 1))
    divergence = float(totals[1].parts["kl"])
    assert divergence > 1
    assert float((totals[1].total - totals[0].total).detach()) == pytest.approx(0.5 * divergence, rel=1e-4)


@pytest.mark.parametrize(("step", "edge"), [(1, 4), (2, SIZE)])
def test_squares_of_grids_come_before_whole_ones_are_rendered(step: int, edge: int):
    stage = small_stage(crop=4, rendering_from=2)
    seen: list[torch.Size] = []
    stage.network.vae.encoder.conv_in.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    losses = stage(make_views(), step)
    assert seen == [(8, 12, edge, edge)]
    assert ("rgb" in losses.parts) == (step == 2)


def test_the_small_one_starts_with_little_noise():
    autoencoder = CONFIG.network(StageFolders((), Path()), "center")
    posterior = autoencoder.posterior(SplatGrid(random_grid(0)))
    torch.testing.assert_close(posterior.std, torch.full_like(posterior.std, math.exp(-3)))
    assert float(posterior.mean.std()) > 10 * math.exp(-3)
