"""Losses of elevations and of the surface behind images, against values worked out by hand."""

from dataclasses import replace
from math import cos, log, radians, sin
from pathlib import Path
from typing import cast

import pytest
import torch

from diffsplat.core import Views
from diffsplat.geometry import orbit_cameras
from diffsplat.models.elevation_network import ElevationConfig, ElevationEstimator
from diffsplat.pretrained.released_networks import load_elevation_network
from diffsplat.training.elevation_batches import ElevationBatch, seen_surface
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.stages.elevation_stage import (
    ElevationStageConfig,
    SurfaceReader,
    elevation_losses,
    mirrored,
    recolored,
    surface_errors,
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


def view_of(normal: tuple[float, float, float], mask: float, elevation: float) -> Views:
    """Two by two pixels of one surface, seen from azimuth 90 at an elevation."""
    cameras = orbit_cameras([90.0], elevation, width=2, height=2)
    ones = torch.ones(1, 1, 1, 2, 2)
    shown = (
        ((torch.tensor(normal) * 0.5 + 0.5) * mask + 1 - mask).view(1, 1, 3, 1, 1).expand(-1, -1, -1, 2, 2)
    )
    views = {"image": ones.expand(-1, -1, 3, -1, -1), "mask": ones * mask, "normal": shown, "coord": shown}
    return Views(**views, depth=ones, cameras=cameras.for_objects(1))


@pytest.mark.parametrize("mask", [1.0, 0.25, 0.0])
def test_a_floor_tells_the_elevation_that_it_is_seen_from(mask: float):
    """Its normal points up, against the camera's y by the cosine and towards the camera by the sine."""
    for elevation in (0.0, 35.0):
        angle = radians(elevation)
        expected = torch.tensor([1.0, 0.0, -cos(angle), -sin(angle), 1.0]) * mask
        seen = seen_surface(view_of((0, 1, 0), mask, elevation))
        assert torch.allclose(seen, expected.view(5, 1, 1).expand(1, 1, 5, 2, 2), atol=1e-6)


def test_a_wall_that_faces_left_is_seen_to():
    """Seen from azimuth 90, +Z is to the left."""
    seen = seen_surface(view_of((0, 0, 1), 1.0, 20.0))[0, 0, :, 0, 0]
    assert seen.tolist() == pytest.approx([0, -1, 0, 0, 1], abs=1e-6)


def test_mirrored_images_show_mirrored_surfaces():
    torch.manual_seed(0)
    batch = ElevationBatch(torch.rand(64, 3, 1, 2), torch.zeros(64), torch.rand(64, 5, 1, 2))
    turned = mirrored(batch)
    changed = (turned.images != batch.images).flatten(1).any(dim=1)
    assert 16 < int(changed.sum()) < 48
    for index in range(64):
        image, surface = batch.images[index], batch.surface[index]
        if changed[index]:
            image, surface = image.flip(-1), surface.flip(-1)
            surface[1] = -surface[1]
        assert torch.equal(turned.images[index], image)
        assert torch.equal(turned.surface[index], surface)


@torch.no_grad()
def test_every_token_reads_the_cells_of_its_own_patch():
    """Four tokens of two by two cells; the third is that of the lower left patch."""
    reader = SurfaceReader(ElevationConfig(width=8, depth=1, heads=2, patch=4, grid=2, input_size=8))
    reader.surface_head.weight.zero_()
    reader.surface_head.bias.zero_()
    reader.surface_head.weight[:, 0] = torch.arange(1.0, 21.0)
    features = torch.zeros(1, 4, 8)
    features[0, 2, 0] = 1.0
    surface = reader.surface(features)
    assert surface.shape == (1, 5, 4, 4)
    for channel in range(5):
        expected = torch.zeros(4, 4)
        expected[2:, :2] = torch.arange(1.0, 5.0).view(2, 2) + 4 * channel
        assert torch.equal(surface[0, channel], expected)


def test_surfaces_are_compared_with_the_means_of_cells():
    surface = torch.zeros(2, 5, 4, 4)
    surface[1, 3, 0, 1] = 4.0
    read = torch.zeros(2, 5, 2, 2)
    read[1, 3, 0, 0] = 3.0
    assert surface_errors(read, surface).tolist() == pytest.approx([0.0, (3 - 1) ** 2 / 20])


def test_no_file_has_the_layer_that_reads_surfaces(tmp_path: Path):
    config = ElevationConfig(width=8, depth=1, heads=2, patch=4, grid=2, head_width=8, input_size=8)
    for estimate in ("mean", "likeliest"):
        reader = SurfaceReader(replace(config, estimate=estimate))
        reader.save_pretrained(tmp_path)
        read = load_elevation_network(tmp_path)
        assert (type(read), read.config) == (ElevationEstimator, reader.config)
        assert read.released_state_dict().keys() == reader.released_state_dict().keys()


@torch.no_grad()
def test_the_surface_is_read_of_the_patches_and_weighed(monkeypatch: pytest.MonkeyPatch):
    """By a layer that sums a token's numbers: the class's are 9, those of the patches 0."""
    config = ElevationStageConfig(
        pretrained_backbone=False, width=8, depth=1, patch=4, grid=2, offset_weight=0.5, surface_weight=3.0
    )
    stage = config.build(StageFolders((Path("data"),), Path("out")))
    reader = cast(SurfaceReader, stage.network)
    reader.surface_head.weight.fill_(1.0)
    reader.surface_head.bias.zero_()
    tokens = torch.zeros(2, 5, 8)
    tokens[:, 0] = 9.0
    monkeypatch.setattr(reader, "features", lambda _: tokens)
    surface = torch.full((2, 5, 8, 8), 2.0)
    losses = stage(ElevationBatch(torch.rand(2, 3, 8, 8), torch.tensor([-11.0, -2.5]), surface), 1)
    assert losses.parts["surface"].item() == pytest.approx(4.0)
    expected = losses.parts["interval"] + 0.5 * losses.parts["offset"] + 3.0 * 4.0
    assert losses.total.item() == pytest.approx(expected.item())
