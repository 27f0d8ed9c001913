"""What the default cameras see of objects anywhere, of any size, among outliers: measured in rendered images."""

import pytest
import torch

from diffsplat.core import Splats
from diffsplat.geometry import ring_cameras
from diffsplat.geometry.splat_framing import framed
from diffsplat.render import render

SIZE = 64


def ball(center: tuple[float, float, float], radius: float, far: list[tuple[float, float, float]]) -> Splats:
    """3000 Gaussians on a sphere, 0.05 radii large, and one at each far place."""
    source = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(3000, 3, generator=source), dim=1)
    means = torch.cat([directions * radius + torch.tensor(center), torch.tensor(far).reshape(-1, 3)])
    ones = torch.ones(len(means))
    quats = torch.tensor([[1.0, 0, 0, 0]]).expand(len(means), 4)
    size = torch.full((len(means), 3), 0.05 * radius)
    return Splats(means, size, quats, ones, ones[:, None].expand(-1, 3) * 0.5)


def extents(splats: Splats) -> list[float]:
    """Of the alpha in the four views, least and greatest row and column in -1..1 of the image."""
    alpha = render(splats, ring_cameras(size=SIZE), normals=False).alpha[:, 0].amax(dim=0) > 0.5
    rows, columns = torch.nonzero(alpha.any(dim=1)).flatten(), torch.nonzero(alpha.any(dim=0)).flatten()
    edges = [int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1]
    return [2 * edge / SIZE - 1 for edge in edges]


FAR = {
    "none": [],
    "one": [(1e5, 0.0, 0.0)],
    "absurd": [(7e30, -7e30, 1.0)],
    "several sides": [(50.0 * side, 300.0, -1e4 * side) for side in (-1.0, 1.0, 2.0)] * 50,
}


@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("radius", [1e-4, 0.05, 1.0, 3000.0])
@pytest.mark.parametrize("center", [(0.0, 0.0, 0.0), (120.0, -3.0, 40.0)])
def test_a_ball_fills_the_view(center: tuple[float, float, float], radius: float, far: str):
    if radius == 1e-4 and center[0]:
        pytest.skip("float32 does not resolve the ball there")
    found = extents(framed(ball(center, radius, FAR[far])))
    for edge, side in zip(found, (-1, 1, -1, 1), strict=True):
        assert 0.8 < edge * side <= 1


def test_faint_floaters_do_not_count():
    splats = ball((5.0, 5.0, 5.0), 2.0, [])
    haze = ball((5.0, 5.0, 5.0), 40.0, [])
    means = torch.cat([splats.means, haze.means])
    opacities = torch.cat([splats.opacities, haze.opacities * 0.02])
    parts = [
        torch.cat([getattr(splats, name), getattr(haze, name)]) for name in ("scales", "quats", "colors")
    ]
    found = extents(framed(Splats(means, parts[0] * 0.2, parts[1], opacities, parts[2])))
    assert found[1] - found[0] > 1.5


@pytest.mark.parametrize("radius", [0.25, 0.4, 0.5])
def test_objects_of_the_usual_size_stay_where_they_are(radius: float):
    splats = ball((0.02, -0.05, 0.0), radius, [(30.0, 0.0, 0.0)])
    assert framed(splats) is splats


def test_a_single_gaussian():
    splats = ball((0.0, 0.0, 0.0), 1.0, [])
    alone = framed(splats.take(torch.arange(1)))
    assert alone.means.abs().max() < 1e-5
    assert float(alone.scales.max()) == pytest.approx(0.45)
