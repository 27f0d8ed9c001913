"""Shapes of Gaussians with quaternions of any length, against the original rasteriser's formula."""

import torch

from diffsplat.core import SplatGrid
from diffsplat.core.splat_grid import ROTATION
from diffsplat.geometry import quaternion_to_matrix, ring_cameras
from diffsplat.geometry.unnormalized_quaternions import with_original_rotations


def original_covariance(scales: torch.Tensor, quats: torch.Tensor) -> torch.Tensor:
    """``computeCov3D`` of Kerbl et al.'s rasteriser, element by element."""
    r, x, y, z = quats.unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - r * z), 2 * (x * z + r * y)],
        [2 * (x * y + r * z), 1 - 2 * (x * x + z * z), 2 * (y * z - r * x)],
        [2 * (x * z - r * y), 2 * (y * z + r * x), 1 - 2 * (x * x + y * y)],
    ]
    rotation = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    return rotation @ torch.diag_embed(scales.square()) @ rotation.mT


def test_covariances_are_those_of_the_formula():
    values = torch.rand(2, 4, 12, 6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    grid = SplatGrid(values)
    plain = grid.to_splats(ring_cameras(10.0, size=6).for_objects(2))
    shaped = with_original_rotations(plain, grid)
    decoded = values[:, :, ROTATION].permute(0, 1, 3, 4, 2).flatten(1, 3).double()
    expected = original_covariance(plain.scales.double(), decoded)
    rotation = quaternion_to_matrix(shaped.quats.double())
    found = rotation @ torch.diag_embed(shaped.scales.double().square()) @ rotation.mT
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()
    assert torch.equal(shaped.means, plain.means)


def test_unit_quaternions_keep_their_shapes():
    values = torch.rand(1, 4, 12, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    values[:, :, ROTATION] /= values[:, :, ROTATION].norm(dim=2, keepdim=True)
    grid = SplatGrid(values)
    plain = grid.to_splats(ring_cameras(10.0, size=4).for_objects(1))
    shaped = with_original_rotations(plain, grid)
    assert torch.allclose(shaped.scales, plain.scales.sort(dim=-1).values, rtol=1e-4)
