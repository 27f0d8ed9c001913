"""Losses of elevations and changes of images, against values worked out by hand."""

from math import log

import pytest
import torch

from diffsplat.models.elevation_network import ElevationConfig, ElevationEstimator
from diffsplat.training.elevation_batches import ElevationBatch
from diffsplat.training.stages.elevation_stage import (
    ElevationStage,
    ElevationStageConfig,
    elevation_losses,
    mirrored,
    recolored,
)

LOWER_BOUNDS = torch.tensor([-4.0, -2.0, 0.0])


def losses_of(offset: float, degrees: float, weight: float = 1.0) -> float:
    logits = torch.zeros(1, 3)
    losses = elevation_losses(logits, torch.tensor([offset]), torch.tensor([degrees]), LOWER_BOUNDS, weight)
    return float(losses.total)


@pytest.mark.parametrize(
    ("offset", "error"),
    [(0.5, 0.0), (1.5, 1.0), (-3.0, 0.25), (7.0, 2.25)],
    ids=["hit", "off", "below", "above"],
)
def test_offsets_are_clamped_to_their_interval(offset: float, error: float):
    assert losses_of(offset, -1.5) == pytest.approx(log(3) + error)
    assert losses_of(offset, -1.5, weight=2.0) == pytest.approx(log(3) + 2 * error)


def test_the_interval_that_holds_the_elevation_is_the_right_one():
    logits = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
    degrees = torch.tensor([-4.0, -0.1, 1.9])
    losses = elevation_losses(logits, torch.zeros(3), degrees, LOWER_BOUNDS)
    assert float(losses.terms["interval"].max()) < 1e-3


def test_the_stage_weighs_the_offset():
    sizes = ElevationConfig(width=8, depth=1, heads=2, patch=14, grid=2, head_width=8)
    stage = ElevationStage(ElevationStageConfig(offset_weight=0.5), ElevationEstimator(sizes))
    losses = stage(ElevationBatch(torch.rand(2, 3, 28, 28), torch.tensor([-11.5, -2.5])), 1)
    assert losses.parts["offset"].item() > 0
    expected = losses.parts["interval"] + 0.5 * losses.parts["offset"]
    assert losses.total.item() == pytest.approx(expected.item())


def test_recoloring_keeps_white_and_mixes_whole_images():
    """One linear map of what is missing to white serves all pixels of an image."""
    torch.manual_seed(0)
    images = torch.rand(2, 3, 4, 4) * 0.2 + 0.7
    images[:, :, 0] = 1.0
    mixed = recolored(images, 0.1)
    assert torch.equal(mixed[:, :, 0], images[:, :, 0])
    assert (mixed - images).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    assert torch.equal(recolored(images, 0.0), images)
    for before, after in zip(1 - images.flatten(2), 1 - mixed.flatten(2), strict=True):
        fitted = torch.linalg.lstsq(before.T, after.T).solution
        assert before.T @ fitted == pytest.approx(after.T, abs=1e-5)


def test_half_of_the_images_are_mirrored():
    torch.manual_seed(0)
    images = torch.rand(64, 3, 2, 2)
    turned = mirrored(images)
    flipped = [not torch.equal(one, other) for one, other in zip(turned, images, strict=True)]
    assert 16 < sum(flipped) < 48
    for one, other, flip in zip(turned, images, flipped, strict=True):
        assert torch.equal(one, other.flip(-1) if flip else other)
