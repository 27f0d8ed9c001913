"""Surfaces bent to normals, against spheres and planes of which depths and normals have a closed form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffsplat.core import Cameras
from diffsplat.geometry import ring_cameras
from diffsplat.geometry.normal_integration import DepthSteps

SIZE = 48
RADIUS = 0.5
CAMERA = ring_cameras(25.0, size=SIZE)[1].to(torch.float64)


def rays(camera: Cameras) -> torch.Tensor:
    """``[3, H, W]`` from the camera's centre, one world unit along its axis."""
    ones = torch.ones(1, SIZE, SIZE, dtype=torch.float64)
    return camera.unproject(ones) - camera.centers[:, None, None]


def sphere() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Depths ``[H, W]``, normals ``[3, H, W]`` and where it is ``[1, H, W]``, of a sphere around the origin."""
    directions, center = rays(CAMERA), CAMERA.centers[:, None, None]
    a, b = (directions**2).sum(0), (directions * center).sum(0)
    root = b**2 - a * (center.square().sum(0) - RADIUS**2)
    depth = torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, 1.4)
    return depth, (center + depth * directions) / RADIUS, (root > 0)[None]


def plane(normal: torch.Tensor) -> torch.Tensor:
    """Depths ``[H, W]`` of the plane through the origin."""
    ahead = (normal[:, None, None] * rays(CAMERA)).sum(0)
    return -(normal @ CAMERA.centers) / ahead


def shape_error(found: torch.Tensor, depth: torch.Tensor, where: torch.Tensor) -> float:
    """Deviation of the ratio of two depth maps: none when they differ by a factor alone."""
    return float((found / depth)[where].log().std())


def test_steps_over_a_sphere_are_those_of_its_depths() -> None:
    depth, normals, known = sphere()
    steps = DepthSteps.of_normals(normals, known, CAMERA)
    right = (depth[:, 1:] / depth[:, :-1]).log()
    down = (depth[1:] / depth[:-1]).log()
    for found, weight, expected in (
        (steps.steps[0, :, :-1], steps.weights[0, :, :-1], right),
        (steps.steps[1, :-1], steps.weights[1, :-1], down),
    ):
        assert float(expected[weight > 0].abs().max()) > 0.03
        torch.testing.assert_close(found[weight > 0], expected[weight > 0], atol=1e-12, rtol=0)


def test_weights_end_where_nothing_is_known_or_no_pixel_follows() -> None:
    _, normals, known = sphere()
    weights = DepthSteps.of_normals(normals, known, CAMERA).weights
    inside = known[0]
    assert not weights[0, :, -1].any()
    assert not weights[1, -1].any()
    assert not weights[:, ~inside].any()
    assert not weights[0, :, :-1][~inside[:, 1:]].any()
    # A ray through the middle of the sphere meets it head-on.
    assert float(weights.max()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("kind", ["rough", "waves"])
def test_a_dented_sphere_becomes_round_again(kind: str) -> None:
    depth, normals, known = sphere()
    rough = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    waves = torch.sin(torch.arange(SIZE, dtype=torch.float64) * 0.8)[:, None].expand(SIZE, SIZE)
    dented = depth + 0.05 * (rough if kind == "rough" else waves)
    found = DepthSteps.of_normals(normals, known, CAMERA).applied(dented)
    before = shape_error(dented, depth, known[0])
    assert shape_error(found, depth, known[0]) < 0.1 * before
    assert torch.equal(found[~known[0]], dented[~known[0]])


def test_a_wall_takes_the_slant_of_a_plane() -> None:
    """Of a wall across the image, one normal makes a slope, whatever way it leans. The wall resists, more the flatter
    the plane is seen: up to two fifths of that slope are missing."""
    for toward in ([0.3, 0.4, 0.85], [-0.5, 0.5, 0.7]):
        normal = torch.tensor(toward, dtype=torch.float64) @ CAMERA.camera_to_world[:3, :3].mT
        normal = -normal if float(normal @ CAMERA.centers) < 0 else normal
        depth = plane(normal)
        everywhere = torch.ones(1, SIZE, SIZE, dtype=torch.bool)
        normals = 3 * normal[:, None, None].expand(3, SIZE, SIZE)
        wall = torch.full((SIZE, SIZE), 1.4, dtype=torch.float64)
        found = DepthSteps.of_normals(normals, everywhere, CAMERA).applied(wall)
        small = torch.zeros_like(everywhere[0])
        small[16:32, 16:32] = True
        assert shape_error(wall, depth, small) > 0.03
        assert shape_error(found, depth, small) < 0.4 * shape_error(wall, depth, small)


def test_a_jump_in_depth_stays() -> None:
    """Two walls across the image, one before the other: their normals are the same and say nothing of the gap."""
    forward = CAMERA.camera_to_world[:3, 2]
    everywhere = torch.ones(1, SIZE, SIZE, dtype=torch.bool)
    walls = torch.full((SIZE, SIZE), 1.2, dtype=torch.float64)
    walls[:, SIZE // 2 :] = 1.6
    steps = DepthSteps.of_normals(-forward[:, None, None].expand(3, SIZE, SIZE), everywhere, CAMERA)
    torch.testing.assert_close(steps.applied(walls), walls, atol=0.02, rtol=0)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.2, 5), st.integers(0, 1000))
def test_depths_in_another_unit_are_bent_alike(unit: float, seed: int) -> None:
    depth, normals, known = sphere()
    noise = torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    steps = DepthSteps.of_normals(normals, known, CAMERA)
    torch.testing.assert_close(steps.applied(unit * (depth + noise)), unit * steps.applied(depth + noise))


def test_objects_of_a_batch_do_not_touch_each_other() -> None:
    depth, normals, known = sphere()
    steps = DepthSteps.of_normals(normals, known, CAMERA)
    noise = torch.rand(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    alone = torch.stack([steps.applied(each) for each in depth + noise])
    torch.testing.assert_close(steps.applied(depth + noise), alone)


def test_depths_that_agree_already_stay() -> None:
    """Also in single precision, where the solver's products fall to zero."""
    depth, normals, known = sphere()
    steps = DepthSteps.of_normals(normals.float(), known, CAMERA.to(torch.float32))
    found = steps.applied(depth.float())
    torch.testing.assert_close(found, depth.float(), atol=1e-4, rtol=0)
    nothing = DepthSteps.of_normals(normals, torch.zeros_like(known), CAMERA)
    assert torch.equal(nothing.applied(depth), depth)


def test_normals_of_another_size_are_refused() -> None:
    _, normals, known = sphere()
    with pytest.raises(ValueError, match=r"normals.*\(3, 48, 40\)"):
        DepthSteps.of_normals(normals[:, :, :40], known, CAMERA)
