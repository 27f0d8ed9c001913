"""Normals of flat Gaussians, for the backends that compute them in PyTorch."""

import torch
from torch import Tensor

from diffsplat.core import Cameras, Splats
from diffsplat.geometry.rotations import quaternion_to_matrix


def facing_normals(splats: Splats, cameras: Cameras) -> Tensor:
    """``[B, V, N, 3]`` unit world normals: each Gaussian's shortest axis, on the side of the camera.

    Args:
        splats: batch ``[B]``.
        cameras: batch ``[B, V]``.

    Of equally short axes the first is taken. The choice of axis and side carries no gradient.
    """
    shortest = splats.scales.argmin(dim=-1)
    index = shortest[..., None, None].expand(*shortest.shape, 3, 1)
    axis = quaternion_to_matrix(splats.quats).gather(-1, index).squeeze(-1).unsqueeze(1)
    with torch.no_grad():
        view = splats.means.unsqueeze(1) - cameras.centers.unsqueeze(2)
        away = (axis * view).sum(dim=-1, keepdim=True) > 0
    return torch.where(away, -axis, axis)
