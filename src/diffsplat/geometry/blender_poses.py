"""Poses as Blender, NeRF and nerfstudio write them."""

import torch
from torch import Tensor

from diffsplat.core.without_autocast import without_autocast


@without_autocast
def y_up(vectors: Tensor) -> Tensor:
    """Vectors ``[..., 3]`` of a world with Z up, in one with Y up."""
    x, y, z = vectors.unbind(-1)
    return torch.stack([x, z, -y], dim=-1)


def from_blender(poses: Tensor) -> Tensor:
    """``[*B, 4, 4]`` camera-to-world poses in OpenCV axes and Y up.

    Args:
        poses: ``[*B, 4, 4]`` camera-to-world poses with Z up; camera x right, y up, z backward.
    """
    flip = poses.new_tensor([1.0, -1.0, -1.0, 1.0])
    return torch.cat([y_up(poses[..., :3, :].mT).mT, poses[..., 3:, :]], dim=-2) * flip
