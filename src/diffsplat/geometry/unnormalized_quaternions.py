"""Gaussians as the original's rasteriser shapes them, which does not normalise quaternions."""

import torch
from torch import Tensor

from diffsplat.core import SplatGrid, Splats
from diffsplat.core.splat_grid import ROTATION
from diffsplat.geometry.rotations import matrix_to_quaternion, quaternion_to_matrix


def with_original_rotations(splats: Splats, grid: SplatGrid) -> Splats:
    """Splats of a grid whose covariances come from its quaternions of any length.

    The rasteriser of Kerbl et al. (2023) puts a quaternion ``q`` as it is into the formula for unit ones, which gives
    ``(1 - |q|^2) I + |q|^2 R`` instead of a rotation ``R``. The covariance that follows is that of other scales and
    another rotation, which any renderer draws alike. ``splats`` are what ``grid.to_splats`` returned.
    """
    lengths = grid.values[:, :, ROTATION].double().square().sum(dim=2).flatten(1)
    matrices = quaternion_to_matrix(splats.quats.double())
    mixed = torch.lerp(torch.eye(3).to(matrices), matrices, lengths[..., None, None])
    scales, quats = _principal_axes(mixed * splats.scales.double().unsqueeze(-2))
    return Splats(splats.means, scales.float(), quats.float(), splats.opacities, splats.colors)


def _principal_axes(factors: Tensor) -> tuple[Tensor, Tensor]:
    """Sigmas ``[*B, 3]`` and quaternions ``[*B, 4]`` of covariances ``F F^T`` of ``[*B, 3, 3]``."""
    variances, axes = torch.linalg.eigh(factors @ factors.mT)
    handed = torch.where(torch.linalg.det(axes)[..., None, None] < 0, -axes, axes)
    return variances.clamp_min(0).sqrt(), matrix_to_quaternion(handed)
