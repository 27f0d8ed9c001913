"""Normals of flat Gaussians, for the backends that compute them in PyTorch."""

import torch
from torch import Tensor

from diffsplat.geometry.rotations import quaternion_to_matrix
from diffsplat.render.backend_input import RenderTask


def facing_normals(task: RenderTask) -> Tensor:
    """``[B, V, N, 3]`` unit world normals: each Gaussian's shortest axis, on the side of the camera.

    Of equally short axes the first is taken. The choice of axis and side carries no gradient.
    """
    with torch.no_grad():
        x, y, z = task.scales.unbind(-1)
        shortest = torch.where((x <= y) & (x <= z), 0, torch.where(y <= z, 1, 2))
        index = shortest[..., None, None].expand(*shortest.shape, 3, 1)
    axis = quaternion_to_matrix(task.quats).gather(-1, index).squeeze(-1).unsqueeze(1)
    with torch.no_grad():
        view = task.means.unsqueeze(1) - task.camera_centers.unsqueeze(2)
        away = (axis * view).sum(dim=-1, keepdim=True) > 0
    return torch.where(away, -axis, axis)
