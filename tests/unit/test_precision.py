"""Geometry under autocast is the geometry without it."""

import pytest
import torch

from diffsplat.core import Cameras
from diffsplat.core.precision import full_precision
from diffsplat.geometry import normals_to_first_view, orbit_cameras, plucker_rays


@pytest.fixture
def cameras() -> Cameras:
    return orbit_cameras([0.0, 90.0, 200.0], 17.0, width=8, height=8)


def test_functions_of_cameras_do_not_change_under_autocast(cameras: Cameras) -> None:
    depth = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) + 1
    normals = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    functions = (
        lambda: plucker_rays(cameras),
        lambda: cameras.unproject(depth),
        lambda: cameras.world_to_camera,
        lambda: cameras.relative_to_first(1.4).camera_to_world,
        lambda: normals_to_first_view(normals, cameras),
    )
    for function in functions:
        expected = function()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = function()
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


def test_autocast_goes_on_after_the_function() -> None:
    product = full_precision(lambda x: x @ x)
    x = torch.full((2, 2), 1.001)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product(x).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16
