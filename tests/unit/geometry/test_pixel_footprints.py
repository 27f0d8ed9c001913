"""Gaussians that cover a surface."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffsplat.core import Splats
from diffsplat.geometry import orbit_cameras, pixel_footprints, quaternion_to_matrix
from diffsplat.geometry.pixel_footprints import FOOTPRINT_SIGMA, THICKNESS
from diffsplat.render import render

SIZE = 32


def plane(right: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """``[3, SIZE, SIZE]`` points of an even grid."""
    steps = torch.arange(SIZE, dtype=right.dtype) - SIZE / 2
    return right[:, None, None] * steps + down[:, None, None] * steps[:, None]


def covariances(sigmas: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    """``[H, W, 3, 3]``."""
    axes = quaternion_to_matrix(rotations.movedim(-3, -1)) * sigmas.movedim(-3, -1).unsqueeze(-2)
    return axes @ axes.mT


steps = st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(lambda v: torch.tensor(v, dtype=torch.float64))


@settings(max_examples=200, deadline=None)
@given(steps, steps)
def test_covariance_is_that_of_a_round_gaussian_carried_over(right: torch.Tensor, down: torch.Tensor) -> None:
    area = torch.linalg.cross(right, down)
    if area.norm() < 1e-2:
        return
    found = covariances(*pixel_footprints(plane(right, down)))[3, 4]
    normal = area / area.norm()
    flat = found - (normal @ found @ normal) * torch.outer(normal, normal)
    expected = FOOTPRINT_SIGMA**2 * (torch.outer(right, right) + torch.outer(down, down))
    torch.testing.assert_close(flat, expected, atol=1e-8, rtol=1e-6)
    smallest = torch.linalg.eigvalsh(expected)[1].sqrt()
    assert float((normal @ found @ normal).sqrt()) == pytest.approx(THICKNESS * float(smallest), rel=1e-5)


def test_a_step_in_depth_is_not_bridged() -> None:
    points = plane(torch.tensor([0.01, 0.0, 0.0]), torch.tensor([0.0, 0.01, 0.0]))
    points[2, :, SIZE // 2 :] = 0.5
    sigmas, _ = pixel_footprints(points)
    assert float(sigmas.max()) < 0.01


def test_a_plane_seen_at_a_slant_has_no_holes_from_the_front() -> None:
    """The points that a camera sees at 75 degrees from the plane's normal, drawn from straight above."""
    slant = torch.deg2rad(torch.tensor(75.0))
    footprint = 0.01
    # One pixel down is a long way over the plane.
    points = plane(torch.tensor([footprint, 0.0, 0.0]), torch.tensor([0.0, 0.0, footprint / slant.cos()]))
    sigmas, rotations = pixel_footprints(points)
    above = orbit_cameras([0.0], 89.0, width=64, height=64)
    alphas: list[float] = []
    for scales in (sigmas, torch.full_like(sigmas, FOOTPRINT_SIGMA * footprint)):
        splats = Splats(
            means=points.flatten(1).mT[None],
            scales=scales.flatten(1).mT[None],
            quats=rotations.flatten(1).mT[None],
            opacities=torch.ones(1, SIZE * SIZE),
            colors=torch.ones(1, SIZE * SIZE, 3),
        )
        seen = render(splats, above.for_objects(1), normals=False).alpha
        alphas.append(float(seen[0, 0, 0, 24:40, 30:34].min()))
    covered, holed = alphas
    assert covered > 0.95
    assert holed < 0.5


def test_coinciding_points_have_no_extent() -> None:
    sigmas, rotations = pixel_footprints(torch.zeros(3, 4, 4))
    assert (sigmas == 0).all()
    assert rotations.isfinite().all()


def test_points_without_neighbours_are_refused() -> None:
    with pytest.raises(ValueError, match=r"points \(3, 1, 5\), expected at least 2 x 2 pixels"):
        pixel_footprints(torch.zeros(3, 1, 5))
    with pytest.raises(ValueError, match=r"points has shape \(4, 8, 8\)"):
        pixel_footprints(torch.zeros(4, 8, 8))
